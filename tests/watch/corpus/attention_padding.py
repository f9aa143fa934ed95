"""Attention in which one query may attend to nothing."""

import torch
import torch.nn.functional as F


class SelfAttention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = torch.nn.Linear(8, 24)

    def forward(self, x, padding):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        scores = q @ k.transpose(-2, -1) / 8**0.5
        scores = scores.masked_fill(padding[:, None, :], float("-inf"))
        attention = F.softmax(scores, dim=-1)  # <- fault: op=softmax
        return attention @ v


torch.manual_seed(0)
padding = torch.tensor([[False, False, True], [True, True, True]])
SelfAttention()(torch.randn(2, 3, 8), padding).pow(2).mean().backward()
