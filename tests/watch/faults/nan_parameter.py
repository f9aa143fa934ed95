"""A broken checkpoint: one weight is NaN before the first step."""

import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
state = model.state_dict()
state["2.weight"][1, 2] = float("nan")
model.load_state_dict(state)
loss = model(torch.randn(3, 4)).sum()  # <- fault: name=2.weight phase=parameter
loss.backward()
