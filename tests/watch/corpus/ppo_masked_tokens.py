"""A policy ratio with padding that is masked after exp."""

import torch


def policy_loss(new, old, advantages, mask):
    ratio = torch.exp(new - old)  # <- fault: op=exp
    per_token = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    return (per_token * mask).sum() / mask.sum()


torch.manual_seed(0)
new = torch.nn.Parameter(torch.randn(2, 5) - 1)
old = torch.randn(2, 5) - 1
mask = torch.ones(2, 5)
old[1, 3:], mask[1, 3:] = -300.0, 0.0
loss = policy_loss(new, old, -torch.ones(2, 1), mask)
loss.backward()
