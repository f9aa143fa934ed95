"""Mixture density network, likelihood by hand."""

import math

import torch
import torch.nn as nn


class MDN(nn.Module):
    def __init__(self, k=4):
        super().__init__()
        self.h = nn.Sequential(nn.Linear(1, 16), nn.Tanh())
        self.pi, self.mu, self.sigma = nn.Linear(16, k), nn.Linear(16, k), nn.Linear(16, k)

    def forward(self, x):
        h = self.h(x)
        return torch.softmax(self.pi(h), -1), self.mu(h), torch.exp(self.sigma(h))


def mdn_loss(pi, mu, sigma, y):
    prob = torch.exp(-0.5 * ((y - mu) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    return -torch.log((pi * prob).sum(1)).mean()  # <- fault: op=log


torch.manual_seed(0)
net = MDN()
x = torch.linspace(-1, 1, 20)[:, None]
y = torch.sin(3 * x)
y[7] = 60.0
mdn_loss(*net(x), y).backward()
