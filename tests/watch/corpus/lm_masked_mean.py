"""A small transformer LM whose loss averages over no tokens."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.ln = nn.LayerNorm(d)
        self.attn = nn.MultiheadAttention(d, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x):
        T = x.shape[1]
        causal = torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
        h = self.ln(x)
        x = x + self.attn(h, h, h, attn_mask=causal, need_weights=False)[0]
        return x + self.mlp(x)


class LM(nn.Module):
    def __init__(self, vocab=20, d=16):
        super().__init__()
        self.emb = nn.Embedding(vocab, d)
        self.blocks = nn.ModuleList([Block(d) for _ in range(2)])
        self.head = nn.Linear(d, vocab)

    def forward(self, idx, targets, loss_mask):
        x = self.emb(idx)
        for block in self.blocks:
            x = block(x)
        logits = self.head(x)
        losses = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), reduction="none")
        m = loss_mask.view(-1)
        return (losses * m).sum() / m.sum()  # <- fault: op=div


torch.manual_seed(0)
model = LM()
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(3):
    idx = torch.randint(0, 20, (2, 8))
    targets = torch.randint(0, 20, (2, 8))
    mask = torch.ones(2, 8) if step < 2 else torch.zeros(2, 8)
    loss = model(idx, targets, mask)
    opt.zero_grad()
    loss.backward()
    opt.step()
