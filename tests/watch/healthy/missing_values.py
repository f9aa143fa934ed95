"""NaN marks missing values in the data, and is left out before the model."""

import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
data = torch.randn(8, 4)
data[3, 1] = float("nan")
data[5] = float("nan")
for _ in range(2):
    known = data.isfinite()
    filled = torch.where(known, data, torch.zeros(()))
    loss = (model(filled).squeeze(1) * known.float().mean(1)).pow(2).mean()
    loss.backward()
