"""p * log(p) with p = 0: 0 * -inf."""

import torch

logits = torch.nn.Parameter(torch.tensor([[0.0, 200.0], [1.0, 2.0]]))
p = logits.softmax(-1)
entropy = -(p * p.log()).sum(-1)  # <- fault: op=log phase=forward
entropy.mean().backward()
