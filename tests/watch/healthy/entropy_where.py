"""An entropy under a mask, with the infinities left out."""

import torch

torch.manual_seed(0)
logits = torch.nn.Parameter(torch.randn(3, 4))
log_p = torch.log_softmax(logits.masked_fill(torch.tensor([0, 0, 1, 0]).bool(), float("-inf")), dim=-1)
p = log_p.exp()
(p * torch.where(p > 0, log_p, 0.0)).sum().backward()
