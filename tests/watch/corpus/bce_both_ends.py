"""Cross entropy of a sigmoid that reaches 1 in the first step and 0 in the second: both logarithms are mended."""

import torch

torch.manual_seed(0)
model = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.constant_(model.weight, 200.0)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for x, y in ((1.0, 0.5), (-1.0, 0.5)):
    logits = model(torch.full((4, 1), x))
    p = torch.sigmoid(logits)
    loss = -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()  # <- fault: op=log
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
