"""Triplet with a distance matrix and its root."""

import torch
import torch.nn as nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))


def pairwise_distances(e):
    dot = e @ e.t()
    sq = torch.diagonal(dot)
    d = sq.unsqueeze(1) - 2 * dot + sq.unsqueeze(0)
    return torch.sqrt(d.clamp(min=0))  # <- fault: op=sqrt


x = torch.randn(8, 6)
labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
dist = pairwise_distances(net(x))
same = labels[:, None] == labels[None]
hardest_pos = (dist * same).max(1)[0]
hardest_neg = (dist + 1e5 * same).min(1)[0]
loss = torch.relu(hardest_pos - hardest_neg + 0.5).mean() + 0.01 * dist.mean()
loss.backward()
