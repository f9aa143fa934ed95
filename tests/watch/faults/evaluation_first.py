"""Initialisation, loading and a first evaluation come before the first step: they are not the step."""

import copy

# never: could not be repeated
# never: written to
import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
for layer in (model[0], model[2]):
    torch.nn.init.orthogonal_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
model.load_state_dict(copy.deepcopy(model.state_dict()))
for n in range(3):
    batch = torch.rand(4, 6)
    batch[n] += batch.sum(0)
    with torch.no_grad():
        print(F.cross_entropy(model(batch), torch.tensor([0, 1, 2, 0])).item())
x = torch.randn(4, 6)
weights = torch.relu(model(x))
share = weights / (weights * 0).sum(-1, keepdim=True)  # <- fault: op=div phase=forward
loss = share.sum()
loss.backward()
