"""NT-Xent by hand with a small temperature."""

import torch
import torch.nn.functional as F


def nt_xent(z, temperature=0.01):
    z = F.normalize(z, dim=1)
    similarity = torch.exp(z @ z.T / temperature)  # <- fault: op=exp
    positive = similarity.diagonal(2)
    return -torch.log(positive / similarity.sum(dim=1)[: len(positive)]).mean()


torch.manual_seed(0)
net = torch.nn.Linear(4, 8)
nt_xent(net(torch.randn(6, 4))).backward()
