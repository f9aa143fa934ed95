"""A graph convolution with a node that has no neighbours."""

import torch


class Convolution(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 2))

    def forward(self, x, adjacency):
        degree = adjacency.sum(1)
        scale = degree.pow(-0.5)  # <- fault: op=pow
        return (scale[:, None] * adjacency * scale[None, :]) @ x @ self.weight


adjacency = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
Convolution()(torch.ones(3, 2), adjacency).sum().backward()
