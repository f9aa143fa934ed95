"""The mean of float16 losses."""

import torch

x = torch.nn.Parameter(torch.full((4, 400), 300.0, dtype=torch.float16))
total = x.abs().sum()  # <- fault: op=sum
(total / x.numel()).backward()
