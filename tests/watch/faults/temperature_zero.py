"""An annealed temperature reaches 0."""

import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(4):
    temperature = 1.0 - step / 2
    logits = model(torch.randn(2, 4))
    loss = torch.softmax(logits / temperature, dim=-1)[:, 0].sum()  # <- fault: op=div phase=forward
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
