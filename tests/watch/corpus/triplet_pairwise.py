"""All pairwise distances of a batch, the diagonal among them."""

import torch

torch.manual_seed(0)
net = torch.nn.Linear(3, 4)
z = net(torch.randn(6, 3))
square = (z[:, None] - z[None]).pow(2).sum(-1)
distances = square.sqrt()  # <- fault: op=sqrt
loss = distances.mean()
loss.backward()
