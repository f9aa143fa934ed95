"""Binary cross entropy by hand, from logits, in one function."""

import torch


def loss_of(logits, y):
    p = 1 / (1 + torch.exp(-logits))
    return -torch.mean(y * torch.log(p) + (1 - y) * torch.log(1 - p))  # <- fault: op=log


logits = torch.nn.Parameter(torch.tensor([30.0, -80.0, 2.0]))
loss = loss_of(logits, torch.tensor([1.0, 0.0, 0.0]))
loss.backward()
