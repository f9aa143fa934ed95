"""Cross entropy over the tokens of a mask that is empty."""

import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
logits, labels = model(torch.randn(5, 4)), torch.tensor([0, 1, 2, 0, 1])
mask = labels > 5
loss = F.cross_entropy(logits[mask], labels[mask])  # <- fault: op=cross_entropy
loss.backward()
