"""A gradient penalty: the norm of a zero gradient, differentiated twice."""

import torch

x = torch.zeros(3, 2, requires_grad=True)
critic = torch.nn.Parameter(torch.zeros(2))
score = (x @ critic).sum()
(slope,) = torch.autograd.grad(score, x, create_graph=True)
length = slope.pow(2).sum(-1).sqrt()  # <- fault: op=sqrt phase=backward
loss = (length - 1).pow(2).mean()
loss.backward()
