"""Segmentation: the classes are dimension 1, and one pixel's label is masked."""

# cause: data
# never: proven
import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Conv2d(2, 3, 1)
logits = model(torch.randn(2, 2, 4, 4))
labels = torch.randint(0, 2, (2, 4, 4))
labels[1, 2, 3] = 2
impossible = torch.tensor([False, False, True])[None, :, None, None]
logits = logits.masked_fill(impossible, float("-inf"))
loss = F.cross_entropy(logits, labels)  # <- fault: op=cross_entropy rule=NH006 phase=forward
loss.backward()
