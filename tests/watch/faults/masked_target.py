"""The label's own class is masked."""

# cause: data
import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
logits = model(torch.randn(2, 4)).masked_fill(torch.tensor([False, True, False]), float("-inf"))
loss = F.cross_entropy(logits, torch.tensor([0, 1]))  # <- fault: op=cross_entropy rule=NH006 phase=forward
loss.backward()
