"""A compiled module, called as a module."""

import torch


class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        return x / self.scale  # <- fault: op=div phase=forward


model = torch.compile(Head(), backend="eager")
loss = model(torch.ones(3)).sum()
loss.backward()
