"""The mean of squares less the square of the mean: negative by rounding."""

import torch

x = torch.nn.Parameter(torch.tensor([1004.11, 1004.11, 1004.11]))
variance = (x**2).mean() - x.mean() ** 2
spread = torch.sqrt(variance)  # <- fault: op=sqrt
(x / (spread + 1)).sum().backward()
