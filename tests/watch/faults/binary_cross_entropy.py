"""Cross entropy written out: log(1 - p) with p = 1."""

import torch

torch.manual_seed(0)
model = torch.nn.Linear(2, 1)
x = torch.tensor([[100.0, 100.0], [1.0, 2.0]])
labels = torch.tensor([[1.0], [0.0]])
with torch.no_grad():
    model.weight.fill_(1.0)
p = torch.sigmoid(model(x))
loss = -(
    labels * torch.log(p) + (1 - labels) * torch.log(1 - p)  # <- fault: op=log phase=forward
).mean()
loss.backward()
