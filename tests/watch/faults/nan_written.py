"""A line of the script writes NaN into the activations."""

# cause: data
# says: writes nan
import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
hidden = model(torch.randn(5, 4))
hidden[2] = float("nan")  # <- fault: op=index_put phase=forward
loss = hidden.pow(2).mean()
loss.backward()
