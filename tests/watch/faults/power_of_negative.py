"""A fractional power of a negative number."""

import torch

x = torch.nn.Parameter(torch.tensor([0.5, -0.5]))
loss = (x**1.5).sum()  # <- fault: op=pow phase=forward
loss.backward()
