"""torch.logsumexp of large numbers."""

import torch

x = torch.nn.Parameter(torch.tensor([1000.0, 2.0]))
(torch.logsumexp(x, 0) + torch.nn.functional.softplus(x).sum()).backward()
