"""One sample of the batch holds NaN."""

# cause: data
import torch

torch.manual_seed(0)
model = torch.nn.Linear(8, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
data = torch.randn(12, 8)
data[9, 3] = float("nan")
for start in range(0, 12, 4):
    batch = data[start : start + 4]  # <- fault: input=data phase=input
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
