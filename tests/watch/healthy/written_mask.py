"""Scores are masked by assignment, negated and turned about: an infinity of one sign stays a mask."""

import torch

torch.manual_seed(0)
scores = torch.nn.Linear(4, 6)(torch.randn(5, 4))
scores[:, 2:4] = float("-inf")
distance = 1 - scores
weights = torch.softmax(-distance, dim=-1)
nearest = distance.min(dim=-1).values
loss = weights.sum() + nearest.sum()
loss.backward()
