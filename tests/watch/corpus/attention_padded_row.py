"""Multi-head attention; one sentence is all padding."""

import math

import torch
import torch.nn as nn


class MultiHeadAttention(nn.Module):
    def __init__(self, dim=16, heads=2):
        super().__init__()
        self.heads, self.scale = heads, math.sqrt(dim // heads)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, mask=None):
        B, T, C = x.shape
        q, k, v = (t.view(B, T, self.heads, -1).transpose(1, 2) for t in self.qkv(x).split(C, dim=-1))
        scores = q @ k.transpose(-2, -1) / self.scale
        if mask is not None:
            scores = scores.masked_fill(mask[:, None, None, :] == 0, float("-inf"))
        attn = scores.softmax(dim=-1)  # <- fault: op=softmax
        out = (attn @ v).transpose(1, 2).reshape(B, T, C)
        return self.proj(out)


torch.manual_seed(0)
attn = MultiHeadAttention()
x = torch.randn(3, 5, 16)
lengths = torch.tensor([5, 3, 0])
mask = (torch.arange(5)[None] < lengths[:, None]).long()
out = attn(x, mask)
loss = ((out**2) * mask[..., None]).sum() / mask.sum()
loss.backward()
