"""A Poisson loss by hand."""

import torch


def poisson(log_rate, counts):
    return (log_rate.exp() - counts * log_rate).mean()  # <- fault: op=exp


torch.manual_seed(0)
net = torch.nn.Linear(2, 1)
poisson(net(torch.randn(5, 2) * 400).squeeze(1), torch.ones(5)).backward()
