"""Four backward calls for one step; the third is bad."""

import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.Adam(model.parameters())
for micro in range(8):
    x = torch.randn(2, 4)
    out = model(x)
    shift = out.mean() if micro != 6 else out.min()
    loss = (out - shift + 1e-3).clamp(min=0).log().mean() if micro == 6 else out.pow(2).mean()
    weight = 1.0 if micro != 6 else 0.0
    loss = loss * 1.0 + torch.rsqrt(out.pow(2).sum() * weight).sum() / 4  # <- fault: op=rsqrt phase=forward
    (loss / 4).backward()
    if micro % 4 == 3:
        optimizer.step()
        optimizer.zero_grad()
