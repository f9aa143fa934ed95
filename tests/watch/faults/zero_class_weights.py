"""The only classes in the batch have weight 0."""

import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
weights = torch.tensor([0.0, 1.0, 1.0])
labels = torch.zeros(5, dtype=torch.long)
out = model(torch.randn(5, 4))
loss = F.cross_entropy(out, labels, weight=weights)  # <- fault: op=cross_entropy phase=forward
loss.backward()
