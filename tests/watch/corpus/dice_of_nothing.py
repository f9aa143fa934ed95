"""A dice loss where neither mask nor prediction has a pixel."""

import torch


def dice(p, y):
    overlap = (p * y).sum((1, 2))
    return 1 - (2 * overlap / (p.sum((1, 2)) + y.sum((1, 2)))).mean()  # <- fault: op=div


logits = torch.nn.Parameter(torch.full((2, 3, 3), 1.0))
shown = torch.tensor([1.0, 0.0])[:, None, None]
dice(torch.sigmoid(logits) * shown, torch.zeros(2, 3, 3)).backward()
