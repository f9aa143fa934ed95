"""Adam with eps = 0 divides 0 by 0 where a gradient has always been 0."""

# cause: optimizer
import torch

torch.manual_seed(0)
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.Adam(model.parameters(), eps=0.0)
for _ in range(3):
    x = torch.randn(5, 3) * torch.tensor([1.0, 1.0, 0.0])
    loss = model(x).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()  # <- fault: op=Adam.step name=weight phase=optimizer
