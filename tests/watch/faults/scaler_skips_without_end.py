"""Steps are skipped for ever: the scale comes down so slowly that float16 gradients stay infinite."""

# cause: scale
# says: GradScaler has skipped 20 steps in a row
# says: the loss scale has come down (1.09951e+12,
import torch

torch.manual_seed(0)
model = torch.nn.Linear(8, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=0.99)
for _ in range(40):
    with torch.autocast("cpu", dtype=torch.float16):
        out = model(torch.randn(4, 8))
    loss = out.float().pow(2).mean()  # <- fault: op=float phase=backward
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
