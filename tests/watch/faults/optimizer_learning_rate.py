"""A learning rate that overflows the weights."""

# cause: learning rate
import torch

torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=3e38)
loss = (model(torch.ones(4, 3)) * 10).mean()
loss.backward()
optimizer.step()  # <- fault: op=SGD.step name=weight phase=optimizer
