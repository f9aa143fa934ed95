"""softplus with log1p."""

import torch

x = torch.nn.Parameter(torch.tensor([100.0, 1.0]))
growth = x.exp()  # <- fault: op=exp
loss = growth.log1p().mean()
loss.backward()
