"""logsumexp and log_softmax over partly masked rows."""

import torch

torch.manual_seed(0)
scores = torch.nn.Parameter(torch.randn(4, 5))
masked = scores.masked_fill(torch.rand(4, 5) > 0.7, float("-inf"))
masked = masked.index_fill(1, torch.tensor([0]), 0.0)
loss = torch.logsumexp(masked, -1).sum() - torch.log_softmax(masked, -1)[:, 0].sum()
loss.backward()
