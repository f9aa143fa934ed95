"""Labels as one-hot rows: 0 * log 0 is NaN for the classes that are not the label."""

# says: log_softmax
# never: F.cross_entropy
import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(6, 4)
with torch.no_grad():
    model.weight.mul_(400)
labels = F.one_hot(torch.randint(0, 4, (9,)), 4).float()
p = F.softmax(model(torch.randn(9, 6)), dim=1)
loss = -(labels * torch.log(p)).sum(1).mean()  # <- fault: op=log rule=NH201 phase=forward
loss.backward()
