"""Gradient checkpointing with dropout: the random state is restored for the second forward pass."""

import torch
from torch.utils.checkpoint import checkpoint

torch.manual_seed(0)
block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.GELU())
optimizer = torch.optim.AdamW(block.parameters())
for reentrant in (False, True):
    x = torch.randn(3, 4, requires_grad=True)
    loss = checkpoint(block, x, use_reentrant=reentrant).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
