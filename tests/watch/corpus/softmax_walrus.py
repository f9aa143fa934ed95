"""A softmax whose exps are named by a walrus."""

import torch
import torch.nn as nn

torch.manual_seed(0)
lin = nn.Linear(4, 5)
x = torch.randn(6, 4)
x[2] *= 400
y = torch.randint(5, (6,))
z = lin(x)
p = (e := z.exp()) / e.sum(1, keepdim=True)  # <- fault: op=exp
loss = (p**2).sum()
loss.backward()
