"""The script looks for itself and skips bad losses: it never reaches backward."""

import math

import torch

model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    out = model(torch.full((2, 2), float(step)))
    loss = (out * 0).log().mean()  # <- fault: op=log phase=forward
    if not math.isfinite(loss.item()):
        continue
    loss.backward()
    optimizer.step()
