"""An attention layer with a softmax of its own."""

import torch


class Attention(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.query, self.key = torch.nn.Linear(width, width), torch.nn.Linear(width, width)

    def softmax(self, scores):
        weights = scores.exp()  # <- fault: op=exp
        return weights / weights.sum(dim=-1, keepdim=True)

    def forward(self, x):
        return self.softmax(self.query(x) @ self.key(x).transpose(-2, -1)) @ x


torch.manual_seed(0)
model = Attention(16)
out = model(torch.randn(2, 5, 16) * 20)
out.pow(2).mean().backward()
