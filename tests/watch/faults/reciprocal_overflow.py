"""The loss is finite, 1 / p is not."""

import torch

logits = torch.nn.Parameter(torch.tensor([[0.0, -95.0], [0.0, 1.0]]))
p = torch.softmax(logits, dim=-1)
loss = -torch.log(p[:, 1]).sum()  # <- fault: op=log rule=NH301 phase=backward
loss.backward()
