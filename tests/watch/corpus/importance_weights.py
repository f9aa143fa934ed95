"""A weighted mean whose weights are all 0."""

import torch

torch.manual_seed(0)
net = torch.nn.Linear(3, 1)
weights = torch.zeros(4)
losses = net(torch.randn(4, 3)).squeeze(1).pow(2)
loss = (weights * losses).sum() / weights.sum()  # <- fault: op=div
loss.backward()
