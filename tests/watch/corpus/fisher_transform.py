"""atanh at 1."""

import torch

r = torch.nn.Parameter(torch.tensor([1.0, 0.5]))
loss = torch.atanh(r).sum()  # <- fault: op=atanh
loss.backward()
