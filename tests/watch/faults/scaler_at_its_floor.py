"""GradScaler halves its scale down to 1 while a gradient doubles: at last no scale is left to blame."""

# cause: scale
# says: come down (65536, 32768, ..., 16, 8) in the 14 steps skipped so far: it is not the cause
import torch

torch.manual_seed(0)
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
scaler = torch.amp.GradScaler("cpu")
for step in range(40):
    with torch.autocast("cpu", dtype=torch.float16):
        out = model(torch.ones(1, 2))
    loss = out.float().sum() * 2.0 ** (step + 2)  # <- fault: op=float phase=backward
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
