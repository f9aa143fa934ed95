"""Watched from the start, a NaN born in backward is named as it is made."""
# settings: every_op

import torch

x = torch.nn.Parameter(torch.tensor([1.0, 0.5]))
loss = torch.acos(x).sum()  # <- fault: op=acos phase=backward
loss.backward()
