"""Prepared before training, met in the third batch: the report names the line that made it."""

# cause: data
# says: made by div at
# says: data_prepared_at_start.py:13
import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
lengths = torch.tensor([2.0, 1.0, 3.0, 1.0, 0.0, 2.0])
lengths = torch.stack([lengths] * 4, 1)
data = (lengths - lengths) / lengths
for start in range(0, 6, 2):
    loss = (model(data[start : start + 2]) + 1).pow(2).mean()  # <- fault: input=data phase=input
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
