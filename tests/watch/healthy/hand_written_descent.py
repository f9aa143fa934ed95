"""No optimizer, no module: weights updated in place under no_grad."""

import torch

torch.manual_seed(0)
weight = torch.randn(3, requires_grad=True)
for _ in range(5):
    x = torch.randn(8, 3)
    loss = (x @ weight).pow(2).mean()
    loss.backward()
    with torch.no_grad():
        weight -= 0.1 * weight.grad
        weight.grad.zero_()
