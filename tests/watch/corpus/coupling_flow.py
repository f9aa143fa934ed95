"""RealNVP coupling layers."""

import torch
import torch.nn as nn


class Coupling(nn.Module):
    def __init__(self, d=4):
        super().__init__()
        self.s = nn.Sequential(nn.Linear(d // 2, 16), nn.ReLU(), nn.Linear(16, d // 2))
        self.t = nn.Sequential(nn.Linear(d // 2, 16), nn.ReLU(), nn.Linear(16, d // 2))

    def forward(self, x):
        a, b = x.chunk(2, dim=1)
        s = self.s(a)
        b = b * torch.exp(s) + self.t(a)  # <- fault: op=exp
        return torch.cat([b, a], dim=1), s.sum(dim=1)


torch.manual_seed(0)
flow = nn.ModuleList([Coupling() for _ in range(4)])
x = torch.randn(16, 4)
x[1] *= 900
z, log_det = x, 0
for layer in flow:
    z, ld = layer(z)
    log_det = log_det + ld
log_prob = -0.5 * (z**2).sum(1) - 2 * torch.log(torch.tensor(2 * torch.pi)) + log_det
loss = -log_prob.mean()
loss.backward()
