"""Rows divided by their norm, one of them 0."""

import torch

torch.manual_seed(0)
layer = torch.nn.Linear(4, 8, bias=False)
x = torch.randn(5, 4)
x[2] = 0
embedding = torch.relu(layer(x))
unit = embedding / embedding.norm(dim=1, keepdim=True)  # <- fault: op=div
loss = (unit @ unit.T).mean()
loss.backward()
