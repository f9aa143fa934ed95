"""A classifier whose nn.Softmax is hidden in a Sequential of a class, and whose loss takes the logarithm."""

import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 32),
            nn.ReLU(),
            nn.Linear(32, 5),
            nn.Softmax(1),
        )

    def forward(self, x):
        return self.net(x)


torch.manual_seed(0)
model = Classifier()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
labels = torch.randint(0, 5, (16,))
for step in range(3):
    x = torch.randn(16, 8) * (1 + 5000 * (step == 1))
    p = model(x)
    nll = -torch.log(p)[torch.arange(16), labels]  # <- fault: op=log
    loss = nll.mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
