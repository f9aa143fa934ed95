"""The norm by hand, too."""

import torch


def normalize(v):
    return v / torch.sqrt((v**2).sum(dim=-1, keepdim=True))  # <- fault: op=div


v = torch.nn.Parameter(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
normalize(v).sum().backward()
