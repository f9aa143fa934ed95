"""A sigmoid by hand: its value is right at -100, its gradient is not."""

import torch


def gate(x):
    return 1 / (1 + torch.exp(-x))  # <- fault: op=exp


x = torch.nn.Parameter(torch.tensor([-100.0, 1.0]))
gate(x).sum().backward()
