"""The entropy bonus of a policy that has become certain."""

import torch


class Policy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x):
        return torch.softmax(self.head(x), dim=-1)


def entropy(p):
    return -(p * torch.log(p)).sum(dim=-1)  # <- fault: op=log


torch.manual_seed(0)
policy = Policy()
loss = -entropy(policy(torch.randn(6, 4) * 500)).mean()
loss.backward()
