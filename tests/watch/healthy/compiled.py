"""Compiled, traced, scripted and rewritten modules that stay finite."""

import torch

model = torch.nn.Linear(3, 3)
compiled = torch.compile(model, backend="eager")
step = torch.compile(lambda x: x.tanh(), backend="eager")
traced = torch.jit.trace(torch.nn.Linear(3, 3), torch.ones(2, 3))
scripted = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Softmax(-1)))
rewritten = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.GELU()))
for _ in range(2):
    step(rewritten(scripted(traced(compiled(torch.ones(2, 3)))))).sum().backward()
