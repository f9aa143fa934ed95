"""A causal mask of -inf, consumed by softmax."""

import torch

torch.manual_seed(0)
layer = torch.nn.Linear(8, 8)
optimizer = torch.optim.Adam(layer.parameters())
mask = torch.triu(torch.full((6, 6), float("-inf")), diagonal=1)
for _ in range(3):
    x = torch.randn(2, 6, 8)
    scores = layer(x) @ x.transpose(1, 2) + mask
    loss = (scores.softmax(-1) @ x).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
