"""A geometric mean with a 0 in it."""

import torch

x = torch.nn.Parameter(torch.tensor([0.0, 2.0, 4.0]))
mean = torch.exp(torch.log(x).mean())  # <- fault: op=log
(mean + x.sum()).backward()
