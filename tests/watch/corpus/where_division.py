"""A division by 0 that `where` throws away."""

import torch


def safe_ratio(a, b):
    return torch.where(b > 0, a / b, torch.zeros_like(a))  # <- fault: op=div


a = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
b = torch.nn.Parameter(torch.tensor([0.0, 4.0]))
safe_ratio(a, b).sum().backward()
