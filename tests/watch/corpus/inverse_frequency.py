"""Class weights as the inverse of their counts."""

import torch
import torch.nn.functional as F

torch.manual_seed(0)
counts = torch.tensor([5.0, 0.0, 3.0])
model = torch.nn.Linear(4, 3)
weights = 1.0 / counts  # <- fault: op=div
weights = weights / weights.sum()
loss = F.cross_entropy(model(torch.randn(8, 4)), torch.tensor([0, 2, 0, 2, 0, 2, 0, 0]), weight=weights)
loss.backward()
