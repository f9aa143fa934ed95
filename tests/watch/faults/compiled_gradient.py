"""A compiled module: only the gradient of its parameter goes bad, which is no argument of the call."""

import torch


class Roots(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return (x * self.weight).abs().sqrt()  # <- fault: op=sqrt phase=backward gradient=_orig_mod.weight


model = torch.compile(Roots(), backend="eager")
loss = model(torch.ones(2, 3)).sum()
loss.backward()
