"""Cosine embedding loss by hand; one sentence is all padding."""

import torch
import torch.nn as nn

torch.manual_seed(0)
emb = nn.Embedding(20, 8, padding_idx=0)


def cosine(a, b):
    dot = (a * b).sum(-1)
    return dot / (a.pow(2).sum(-1).sqrt() * b.pow(2).sum(-1).sqrt())  # <- fault: op=div


a = torch.randint(1, 20, (6, 4))
b = torch.randint(1, 20, (6, 4))
b[3] = 0
sim = cosine(emb(a).mean(1), emb(b).mean(1))
loss = (1 - sim).mean()
loss.backward()
