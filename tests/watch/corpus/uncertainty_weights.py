"""Multi-task loss weighted by learned log variances (Kendall)."""

import torch
import torch.nn as nn


class MultiTaskLoss(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.log_vars = nn.Parameter(torch.zeros(n))

    def forward(self, losses):
        total = 0
        for i, loss in enumerate(losses):
            precision = torch.exp(-self.log_vars[i])  # <- fault: op=exp
            total = total + precision * loss + self.log_vars[i]
        return total


torch.manual_seed(0)
net, mtl = nn.Linear(4, 2), MultiTaskLoss(2)
with torch.no_grad():
    mtl.log_vars[1] = -95.0
x, y = torch.randn(16, 4), torch.randn(16, 2)
out = net(x)
loss = mtl([(out[:, 0] - y[:, 0]).pow(2).mean(), (out[:, 1] - y[:, 1]).abs().mean()])
loss.backward()
