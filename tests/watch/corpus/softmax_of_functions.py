"""A softmax whose exp is in a function of its own, called twice."""

import torch

torch.manual_seed(0)
lin = torch.nn.Linear(4, 5)
x = torch.randn(6, 4)
x[2] *= 400
y = torch.randint(5, (6,))


def e(v):
    return v.exp()  # <- fault: op=exp


def probs(v):
    return e(v) / (e(v).sum(1, keepdim=True))


def nll(z, y):
    p = probs(z)
    return -p.log()[range(6), y].mean()


loss = nll(lin(x), y) + (lin.weight**2).sum()
loss.backward()
