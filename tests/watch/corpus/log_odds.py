"""The log-odds of a probability that is 1."""

import torch

p = torch.nn.Parameter(torch.tensor([1.0, 0.3]))
odds = p / (1 - p)  # <- fault: op=div
loss = torch.log(odds).sum()
loss.backward()
