"""A ratio in decibels of a signal that is silent."""

import torch


def snr(clean, estimate):
    noise = clean - estimate
    return 10 * torch.log10((clean**2).sum(-1) / (noise**2).sum(-1))  # <- fault: op=log10


torch.manual_seed(0)
net = torch.nn.Linear(8, 8)
clean = torch.randn(3, 8)
clean[1] = 0
(-snr(clean, net(clean)).mean()).backward()
