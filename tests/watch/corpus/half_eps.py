"""An eps that float16 does not hold."""

import torch

torch.manual_seed(0)
x = torch.nn.Parameter(torch.zeros(2, 4, dtype=torch.float16))
unit = x / (x.abs().sum(-1, keepdim=True) + 1e-8)  # <- fault: op=div
loss = unit.float().sum()
loss.backward()
