"""A softmax of two modules in an nn.Sequential."""

import torch
import torch.nn as nn

torch.manual_seed(0)
lin = nn.Linear(4, 5)
x = torch.randn(6, 4)
x[2] *= 400
y = torch.randint(5, (6,))


class Exp(nn.Module):
    def forward(self, z):
        return torch.exp(z)  # <- fault: op=exp


class Normalise(nn.Module):
    def forward(self, e):
        return e / e.sum(-1, keepdim=True)


net = nn.Sequential(lin, Exp(), Normalise())
loss = (net(x) ** 2).sum()
loss.backward()
