"""KL of two policies by hand; one action has become impossible."""

import torch

torch.manual_seed(0)
old = torch.softmax(torch.randn(4, 3), -1)
policy = torch.nn.Linear(3, 3)
new = torch.softmax(policy(torch.randn(4, 3)) * 500, dim=-1)
kl = (new * (new / old).log()).sum(-1).mean()  # <- fault: op=log
kl.backward()
