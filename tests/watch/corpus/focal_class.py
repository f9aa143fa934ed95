"""The focal loss of the paper, spelled out."""

import torch
import torch.nn as nn


class FocalLoss(nn.Module):
    def __init__(self, alpha=0.25, gamma=2.0):
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, inputs, targets):
        p = torch.sigmoid(inputs)
        ce_loss = -(targets * torch.log(p) + (1 - targets) * torch.log(1 - p))  # <- fault: op=log
        p_t = p * targets + (1 - p) * (1 - targets)
        loss = ce_loss * ((1 - p_t) ** self.gamma)
        alpha_t = self.alpha * targets + (1 - self.alpha) * (1 - targets)
        return (alpha_t * loss).mean()


torch.manual_seed(0)
net = nn.Linear(6, 3)
criterion = FocalLoss()
x = torch.randn(10, 6)
x[4] *= 300
y = torch.randint(0, 2, (10, 3)).float()
loss = criterion(net(x), y)
loss.backward()
