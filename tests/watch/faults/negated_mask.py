"""Distances are masked with inf and negated, which is legal; the fault is a log of 0 elsewhere."""

import torch

torch.manual_seed(0)
points = torch.nn.Parameter(torch.randn(6, 3))
distance = (points[:, None] - points[None]).pow(2).sum(-1)
distance = distance.masked_fill(torch.eye(6, dtype=torch.bool), float("inf"))
attention = torch.softmax(-distance, dim=-1)
entropy = -(attention * torch.log(attention)).sum(-1)  # <- fault: op=log phase=forward
loss = entropy.mean()
loss.backward()
