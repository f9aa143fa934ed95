"""softplus as the formula has it."""

import torch


def softplus(x):
    return torch.log(1 + torch.exp(x))  # <- fault: op=exp


x = torch.nn.Parameter(torch.tensor([100.0, 1.0]))
softplus(x).sum().backward()
