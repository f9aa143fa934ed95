"""The derivative of sqrt is infinite at 0."""

import torch

torch.manual_seed(0)
layer = torch.nn.Linear(3, 3, bias=False)
x = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
distance = layer(x).pow(2).sum(-1).sqrt()  # <- fault: op=sqrt phase=backward
loss = distance.mean()
loss.backward()
