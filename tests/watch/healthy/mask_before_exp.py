"""A policy ratio masked before exp."""

import torch

new = torch.nn.Parameter(torch.zeros(2, 3))
old = torch.tensor([[0.0, 0.1, -0.1], [0.0, -500.0, -500.0]])
mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
ratio = torch.where(mask != 0, new - old, 0.0).exp()
((ratio * mask).sum() / mask.sum().clamp(min=1)).backward()
