"""The model."""

import torch
from torch import nn


class Network(nn.Module):
    """Ends in a softmax."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        return torch.softmax(self.layer(x), dim=1)
