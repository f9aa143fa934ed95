"""Inference without gradients: only --every-op can see it."""
# settings: every_op

import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x):
        e = self.head(x).exp()  # <- fault: op=exp rule=NH101 phase=forward
        return e / e.sum(-1, keepdim=True)


torch.manual_seed(0)
model = Model().eval()
with torch.no_grad():
    for size in (1.0, 10.0, 1000.0):
        model(torch.full((2, 4), size))
