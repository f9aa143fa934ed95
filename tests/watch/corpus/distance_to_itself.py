"""The Euclidean distance of two equal points."""

import torch


def distance(a, b):
    return torch.sqrt(((a - b) ** 2).sum(dim=-1))  # <- fault: op=sqrt


a = torch.nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
b = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
distance(a, b).mean().backward()
