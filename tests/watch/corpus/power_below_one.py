"""A power below 1 at 0."""

import torch

x = torch.nn.Parameter(torch.tensor([0.0, 0.25]))
loss = (x**0.5).sum()  # <- fault: op=pow
loss.backward()
