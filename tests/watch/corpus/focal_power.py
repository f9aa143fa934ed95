"""A focal factor below 1 at p = 1."""

import torch

logits = torch.nn.Parameter(torch.tensor([[40.0, 0.0], [1.0, 0.0]]))
p = torch.softmax(logits, dim=1)[:, 0]
weight = (1 - p) ** 0.5  # <- fault: op=pow
(weight * -torch.log_softmax(logits, dim=1)[:, 0]).mean().backward()
