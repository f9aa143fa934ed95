"""The mean of an empty selection."""

import torch

torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
out = model(torch.randn(4, 3)).squeeze(-1)
positive = out[out > 1e9]
loss = out.pow(2).mean() + positive.mean()  # <- fault: op=mean phase=forward
loss.backward()
