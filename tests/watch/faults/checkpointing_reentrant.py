"""The older form of checkpointing, a custom Function around the block."""

import torch
from torch.utils.checkpoint import checkpoint

torch.manual_seed(0)
layer = torch.nn.Linear(4, 4)


def block(x):
    return torch.log(layer(x) * 0)  # <- fault: op=log phase=forward


x = torch.ones(2, 4, requires_grad=True)
loss = checkpoint(block, x, use_reentrant=True).mean()
loss.backward()
