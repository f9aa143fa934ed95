"""Bilinear scores of unnormalised float16 features: the products add up past 65504 under autocast."""

import torch

torch.manual_seed(0)
left, right = torch.nn.Linear(32, 64), torch.nn.Linear(32, 64)
optimizer = torch.optim.SGD([*left.parameters(), *right.parameters()], lr=1e-9)
for step in range(3):
    x, y = torch.randn(6, 32), torch.randn(6, 32)
    if step == 1:
        x, y = x * 400, y * 400
    with torch.autocast("cpu", dtype=torch.float16):
        similarity = torch.einsum("id,jd->ij", left(x), right(y))  # <- fault: op=einsum
        loss = torch.nn.functional.cross_entropy(similarity.float() / 1000, torch.arange(6))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
