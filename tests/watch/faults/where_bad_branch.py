"""where() throws the value away; the derivative of the branch not taken is 0 / 0 all the same."""

import torch

x = torch.nn.Parameter(torch.tensor([0.0, 1.0, 2.0]))
safe = torch.where(x > 0, torch.log(x), torch.zeros(()))  # <- fault: op=log phase=backward
loss = safe.sum()
loss.backward()
