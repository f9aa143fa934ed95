"""LBFGS calls forward and backward from inside its step."""

import torch

x = torch.nn.Parameter(torch.tensor([2.0]))
optimizer = torch.optim.LBFGS([x], lr=10.0, max_iter=4)


def closure():
    optimizer.zero_grad()
    loss = (x - torch.log(x)).sum()  # <- fault: op=log phase=forward
    loss.backward()
    return loss


for _ in range(5):
    optimizer.step(closure)
