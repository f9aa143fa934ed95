"""The mean over tokens, one row all padding."""

import torch


def pool(hidden, mask):
    return (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)  # <- fault: op=div


torch.manual_seed(0)
layer = torch.nn.Linear(4, 4)
mask = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
pool(layer(torch.randn(2, 3, 4)), mask).mean().backward()
