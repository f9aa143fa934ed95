"""The log-likelihood of a mixture that is too far away."""

import torch

centres = torch.nn.Parameter(torch.tensor([0.0, 1.0]))
x = torch.tensor([2.0, 40.0])
density = torch.exp(-((x[:, None] - centres) ** 2)).sum(dim=1)
loss = -torch.log(density).mean()  # <- fault: op=log
loss.backward()
