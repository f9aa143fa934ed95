"""GradScaler skips the step, but no smaller scale would help: the gradient itself is NaN."""

import torch

torch.manual_seed(0)
model = torch.nn.Linear(2, 1, bias=False)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu")
for _ in range(3):
    x = torch.zeros(4, 2)
    with torch.autocast("cpu", dtype=torch.float16):
        out = model(x)
    loss = out.float().abs().sqrt().sum()  # <- fault: op=sqrt phase=backward
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
