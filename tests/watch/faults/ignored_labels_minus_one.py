"""Labels of -1 are ignored; the infinite logit is in a row that counts."""

# cause: data
import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
x = torch.randn(6, 4)
labels = torch.tensor([0, -1, 2, 1, -1, 0])
logits = model(x)
forbidden = torch.zeros(6, 3, dtype=torch.bool)
forbidden[3, 1] = True
masked = logits.masked_fill(forbidden, float("-inf"))
loss = F.cross_entropy(masked, labels, ignore_index=-1)  # <- fault: op=cross_entropy rule=NH006 phase=forward
loss.backward()
