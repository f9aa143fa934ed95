"""A root of a negative number that `where` throws away."""

import torch

x = torch.nn.Parameter(torch.tensor([-1.0, 0.0, 4.0]))
inside = x > 0
loss = torch.where(inside, torch.sqrt(x), 0.0).sum()  # <- fault: op=sqrt
loss.backward()
