"""A compiled region that stays finite."""

import torch

model = torch.nn.Linear(3, 3)
compiled = torch.compile(model, backend="eager")
step = torch.compile(lambda x: x.tanh(), backend="eager")
for _ in range(2):
    step(compiled(torch.ones(2, 3))).sum().backward()
