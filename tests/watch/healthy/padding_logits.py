"""Classes beyond the vocabulary are padded with -inf."""

import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(4, 6)
padding = torch.arange(8) >= 6
logits = F.pad(model(torch.randn(5, 4)), (0, 2), value=float("-inf"))
loss = F.cross_entropy(logits, torch.randint(0, 6, (5,)))
loss.backward()
