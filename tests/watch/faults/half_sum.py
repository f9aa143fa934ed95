"""A float16 sum of finite numbers passes 65504."""

import torch

x = torch.nn.Parameter(torch.full((1000,), 100.0).half())
loss = x.sum()  # <- fault: op=sum rule=None phase=forward
loss.backward()
