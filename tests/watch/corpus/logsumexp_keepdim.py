"""log of a sum of exps, dimension kept."""

import torch

x = torch.nn.Parameter(torch.tensor([[1000.0, 2.0], [3.0, 4.0]]))
shift = torch.log(torch.sum(torch.exp(x), dim=1, keepdim=True))  # <- fault: op=exp
loss = -(x - shift)[:, 0].mean()
loss.backward()
