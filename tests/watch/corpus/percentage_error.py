"""The mean absolute percentage error with a target of 0."""

import torch

torch.manual_seed(0)
net = torch.nn.Linear(3, 1)
y = torch.tensor([1.0, 0.0, 2.0])
loss = ((net(torch.randn(3, 3)).squeeze(1) - y).abs() / y.abs()).mean()  # <- fault: op=div
loss.backward()
