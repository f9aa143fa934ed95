"""A softmax under autocast, and a log whose eps float16 cannot hold."""

import torch
import torch.nn as nn

torch.manual_seed(0)
lin = nn.Linear(4, 5)
x = torch.randn(6, 4)
x[2] *= 400
y = torch.randint(5, (6,))
with torch.autocast("cpu", dtype=torch.float16):
    z = lin(x)
    e = torch.exp(z)  # <- fault: op=exp
    p = e / e.sum(dim=1, keepdim=True)
    loss = -(p[range(6), y] + 1e-8).log().mean()
loss.backward()
