"""A fractional power of a slightly negative number."""

import torch

torch.manual_seed(0)
net = torch.nn.Conv2d(1, 1, 3)
image = net(torch.rand(1, 1, 6, 6)) * 0.5
corrected = torch.pow(image, 1 / 2.2)  # <- fault: op=pow
corrected.mean().backward()
