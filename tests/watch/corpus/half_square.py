"""The square of a float16 activation."""

import torch

torch.manual_seed(0)
x = torch.nn.Parameter(torch.randn(4, 4).mul(400).half())
loss = x.pow(2).mean()  # <- fault: op=pow
loss.backward()
