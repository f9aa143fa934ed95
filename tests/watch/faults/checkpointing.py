"""Gradient checkpointing: the forward pass runs twice."""

import torch
from torch.utils.checkpoint import checkpoint


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(x).abs().sqrt()  # <- fault: op=sqrt phase=backward


torch.manual_seed(0)
block = Block()
with torch.no_grad():
    block.inner.bias.zero_()
x = torch.zeros(2, 4, requires_grad=True)
loss = checkpoint(block, x, use_reentrant=False).sum()
loss.backward()
