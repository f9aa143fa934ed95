"""Cross entropy written by hand, and summed: the proven fix sums too."""

# says: log_softmax
# says: proven
import torch

torch.manual_seed(0)
model = torch.nn.Linear(6, 4)
with torch.no_grad():
    model.weight.mul_(300)
labels = torch.randint(0, 4, (9,))
e = torch.exp(model(torch.randn(9, 6)))  # <- fault: op=exp rule=NH101 phase=forward
p = e / e.sum(-1, keepdim=True)
loss = -torch.log(p[torch.arange(9), labels]).sum()
loss.backward()
