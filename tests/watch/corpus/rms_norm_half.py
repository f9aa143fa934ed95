"""RMSNorm whose eps is 0 in half precision."""

import torch
import torch.nn as nn


class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-8):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        variance = x.pow(2).mean(-1, keepdim=True)
        return self.weight * x * torch.rsqrt(variance + self.eps)  # <- fault: op=rsqrt


torch.manual_seed(0)
norm, lin = RMSNorm(8).half(), nn.Linear(8, 8).half()
x = torch.randn(4, 8).half()
x[1] = 0
out = lin(norm(x))
loss = out.float().pow(2).mean()
loss.backward()
