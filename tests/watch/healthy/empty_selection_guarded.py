"""A mean over nothing that is guarded."""

import torch

torch.manual_seed(0)
x = torch.nn.Parameter(torch.randn(4))
chosen = x[x > 100]
(chosen.sum() / max(chosen.numel(), 1) + x.sum()).backward()
