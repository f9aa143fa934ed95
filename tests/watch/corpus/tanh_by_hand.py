"""tanh as the formula has it."""

import torch


def tanh(x):
    up, down = torch.exp(x), torch.exp(-x)  # <- fault: op=exp
    return (up - down) / (up + down)


x = torch.nn.Parameter(torch.tensor([100.0, 1.0]))
tanh(x).sum().backward()
