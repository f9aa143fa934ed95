"""Cross entropy by hand over kept tokens only: the mask is part of the loss, so no other loss is put in its place."""

# says: log_softmax
# never: F.cross_entropy
# never: NH007
import torch

torch.manual_seed(0)
model = torch.nn.Linear(6, 4)
with torch.no_grad():
    model.weight.mul_(400)
labels, mask = torch.randint(0, 4, (9,)), torch.tensor([1.0, 0, 1, 1, 0, 1, 1, 1, 0])
p = torch.softmax(model(torch.randn(9, 6)), dim=-1)
losses = -torch.log(p[torch.arange(9), labels])  # <- fault: op=log rule=NH201 phase=forward
loss = (losses * mask).sum() / mask.sum()
loss.backward()
