"""A scripted module runs without Python: its call is named, and what inside of it."""

# says: the backward of scripted Roots (inside: div)
# cause: script
import torch


class Roots(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return (x * self.weight).abs().sqrt()


model = torch.jit.script(Roots())
loss = model(torch.ones(2, 3)).sum()  # <- fault: op=scripted_Roots phase=backward gradient=weight
loss.backward()
