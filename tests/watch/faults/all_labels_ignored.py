"""A batch of padding only: the mean over no labels is 0 / 0."""

import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    labels = torch.randint(0, 3, (5,)) if step < 2 else torch.full((5,), -100)
    out = model(torch.randn(5, 4))
    loss = F.cross_entropy(out, labels)  # <- fault: op=cross_entropy rule=NH007 phase=forward
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
