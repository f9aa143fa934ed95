"""Gumbel noise of a uniform number that is 0."""

import torch

torch.manual_seed(0)
logits = torch.nn.Parameter(torch.randn(2, 3))
u = torch.rand(2, 3)
u[1, 2] = 0
gumbel = -torch.log(-torch.log(u))  # <- fault: op=log
loss = torch.log_softmax(logits + gumbel, -1)[:, 2].sum()
loss.backward()
