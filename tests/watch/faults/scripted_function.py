"""A scripted function made it: not a "parameter" that held it before."""

# says: scripted normalise (inside: div)
# never: parameter
# cause: script
import torch


@torch.jit.script
def normalise(x: torch.Tensor) -> torch.Tensor:
    return x / (x - x)


layer = torch.nn.Linear(3, 3)
out = normalise(layer(torch.ones(2, 3)))  # <- fault: op=scripted_normalise phase=forward
loss = out.sum()
loss.backward()
