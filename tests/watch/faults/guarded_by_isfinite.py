"""The same with torch.isfinite, in a script that ends before the model is called again."""

import torch

model = torch.nn.Linear(2, 1)
out = model(torch.ones(2, 2))
loss = (out * 0).rsqrt().mean()  # <- fault: op=rsqrt phase=forward
if torch.isfinite(loss).all():
    loss.backward()
