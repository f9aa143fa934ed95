"""A softmax in a decorated function."""

import torch
import torch.nn as nn

torch.manual_seed(0)
lin = nn.Linear(4, 5)
x = torch.randn(6, 4)
x[2] *= 400
y = torch.randint(5, (6,))
import functools


def logged(f):
    @functools.wraps(f)
    def inner(*a, **k):
        return f(*a, **k)

    return inner


@logged
def softmax(z, dim=-1):
    e = torch.exp(z)  # <- fault: op=exp
    return e / e.sum(dim, keepdim=True)


loss = (softmax(lin(x), dim=1) ** 2).sum()
loss.backward()
