"""Gradient clipping would turn every gradient NaN; only one parameter had it first."""

import torch

torch.manual_seed(0)
model = torch.nn.ModuleDict({"body": torch.nn.Linear(4, 4), "scale": torch.nn.Linear(1, 1, bias=False)})
with torch.no_grad():
    model["scale"].weight.zero_()
loss = model["body"](torch.randn(2, 4)).mean()
root = model["scale"].weight.abs().sqrt()  # <- fault: op=sqrt gradient=scale.weight phase=backward
loss = loss + root.sum()
loss.backward()
torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
