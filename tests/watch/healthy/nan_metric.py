"""A metric over an empty class is NaN by definition, and only logged."""

import math

import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    labels = torch.randint(0, 2, (6,))
    logits = model(torch.randn(6, 4))
    loss = F.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        recall = (logits.argmax(-1)[labels == 2] == 2).float().mean()
    assert math.isnan(recall.item())
