"""The logarithm of a 0 that is filled afterwards."""

import torch

x = torch.nn.Parameter(torch.tensor([0.0, 1.0, 2.0]))
loss = x.log().masked_fill(x == 0, 0.0).sum()  # <- fault: op=log
loss.backward()
