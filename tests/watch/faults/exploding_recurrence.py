"""Repeated squaring overflows float32 after a few turns."""

import torch

state = torch.nn.Parameter(torch.full((2, 2), 3.0))
hidden = state
for _ in range(9):
    hidden = hidden @ hidden  # <- fault: op=matmul phase=forward
loss = hidden.mean()
loss.backward()
