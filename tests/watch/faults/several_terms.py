"""Two terms are fine, the third is NaN."""

import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
logits = model(torch.randn(6, 4))
reconstruction = F.cross_entropy(logits, torch.randint(0, 3, (6,)))
penalty = model.weight.pow(2).sum()
selected = logits[logits.max(-1).values > 1e6]
consistency = selected.mean()  # <- fault: op=mean phase=forward term=consistency
loss = reconstruction + 0.01 * penalty + 0.5 * consistency
loss.backward()
