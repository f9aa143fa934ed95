"""GradScaler starts too high and skips a few steps: that is its job."""

import torch

torch.manual_seed(0)
model = torch.nn.Linear(8, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
for _ in range(14):
    with torch.autocast("cpu", dtype=torch.float16):
        out = model(torch.randn(4, 8))
    loss = out.float().pow(2).mean()
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
assert scaler.get_scale() < 2.0**24
