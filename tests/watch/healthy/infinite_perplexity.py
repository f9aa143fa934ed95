"""Numbers that are read and never backpropagated: a perplexity that overflows, a term that is left out."""

import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(3):
    logits = model(torch.randn(6, 4)) * 1000
    loss = F.cross_entropy(logits, torch.randint(0, 3, (6,)))
    perplexity = loss.exp().item()
    rare = logits[logits > 1e9].mean()
    if torch.isnan(rare):
        rare = 0.0
    optimizer.zero_grad()
    (loss + rare).backward()
    optimizer.step()
    after = loss.exp().item()
    assert perplexity == after == float("inf")
