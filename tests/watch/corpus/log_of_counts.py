"""The logarithm of counts, some of them 0."""

import torch

counts = torch.tensor([0.0, 3.0, 10.0])
weights = torch.nn.Parameter(torch.ones(3))
loss = (weights * torch.log(counts)).sum()  # <- fault: op=log
loss.backward()
