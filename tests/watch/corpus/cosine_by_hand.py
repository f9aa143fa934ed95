"""The cosine by hand, of a vector that is 0."""

import torch


def cosine(a, b):
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))  # <- fault: op=div


a = torch.nn.Parameter(torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
cosine(a, torch.ones(2, 2)).sum().backward()
