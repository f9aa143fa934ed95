"""Pooling pads with -inf, a running maximum starts there."""

import torch
import torch.nn.functional as F

torch.manual_seed(0)
conv = torch.nn.Conv2d(1, 2, 3, padding=1)
best = torch.full((2,), float("-inf"))
for _ in range(3):
    image = torch.randn(2, 1, 8, 8)
    pooled = F.max_pool2d(conv(image), 3, stride=2, padding=1)
    per_image = pooled.flatten(1).max(-1).values
    best = torch.maximum(best, per_image.detach())
    per_image.mean().backward()
assert torch.isfinite(best).all()
