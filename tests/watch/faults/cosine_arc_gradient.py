"""acos at exactly 1: the angle is 0, its derivative infinite."""

# says: derivative of acos
import torch

a = torch.nn.Parameter(torch.tensor([1.0, 0.0]))
angle = torch.acos(a)  # <- fault: op=acos phase=backward
loss = angle.sum()
loss.backward()
