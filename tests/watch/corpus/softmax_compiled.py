"""A model that is compiled."""

import torch
import torch.nn as nn

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 5)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        z = self.drop(self.lin(x))
        e = torch.exp(z)  # <- fault: op=exp
        return e / e.sum(-1, keepdim=True)


net = torch.compile(Net(), backend="eager")
opt = torch.optim.SGD(net.parameters(), 0.1)
for step in range(3):
    x = torch.randn(6, 4)
    if step == 2:
        x[2] *= 400
    loss = (net(x) ** 2).sum()
    opt.zero_grad()
    loss.backward()
    opt.step()
