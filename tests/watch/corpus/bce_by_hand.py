"""Binary cross entropy by hand, the sigmoid in the model."""

import torch


class Discriminator(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, x):
        return torch.sigmoid(self.layer(x)).squeeze(1)


def bce(p, y):
    return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()  # <- fault: op=log


torch.manual_seed(0)
model = Discriminator()
loss = bce(model(torch.randn(12, 4) * 400), torch.randint(0, 2, (12,)).float())
loss.backward()
