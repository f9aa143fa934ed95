"""The entropy over classes that a mask has made impossible."""

import torch

torch.manual_seed(0)
head = torch.nn.Linear(4, 5)
logits = head(torch.randn(3, 4)).masked_fill(torch.tensor([0, 0, 1, 0, 0]).bool(), float("-inf"))
log_p = torch.log_softmax(logits, dim=-1)
entropy = -(log_p.exp() * log_p).sum(-1)  # <- fault: op=mul
(-entropy.mean()).backward()
