"""A sum over kept tokens divided by how many there are: none."""

# says: nothing was selected
# says: clamp(min=1)
import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
losses = model(torch.randn(6, 4))[:, 0].pow(2)
mask = torch.zeros(6)
loss = (losses * mask).sum() / mask.sum()  # <- fault: op=div phase=forward
loss.backward()
