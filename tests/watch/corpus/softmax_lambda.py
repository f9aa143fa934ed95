"""A softmax in a lambda that computes the exps twice."""

import torch
import torch.nn as nn

torch.manual_seed(0)
lin = nn.Linear(4, 5)
x = torch.randn(6, 4)
x[2] *= 400
y = torch.randint(5, (6,))
softmax = lambda z: z.exp() / z.exp().sum(-1, keepdim=True)  # <- fault: op=exp
loss = (softmax(lin(x)) ** 2).sum()
loss.backward()
