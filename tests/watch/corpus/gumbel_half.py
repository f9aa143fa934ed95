"""Gumbel noise in half precision: u is rounded to 1."""

import torch
import torch.nn as nn


def gumbel_softmax(logits, tau=1.0):
    u = torch.rand(logits.shape).to(logits.dtype)
    g = -torch.log(-torch.log(u))  # <- fault: op=log
    return torch.softmax((logits + g) / tau, dim=-1)


torch.manual_seed(0)
enc = nn.Linear(8, 64).half()
code = nn.Linear(64, 8).half()
for step in range(40):
    x = torch.randn(64, 8).half()
    y = gumbel_softmax(enc(x), tau=0.5)
    loss = (code(y) - x).float().pow(2).mean()
    loss.backward()
