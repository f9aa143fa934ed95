"""Finite in float32, infinite in float16."""

import torch

scale = torch.nn.Parameter(torch.tensor(1.0))
activations = scale * torch.tensor([10.0, 70000.0])
half = activations.half()  # <- fault: op=half rule=NH004 phase=forward
loss = half.float().mean()
loss.backward()
