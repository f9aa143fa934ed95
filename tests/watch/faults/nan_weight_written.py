"""The script itself writes NaN into a weight: that line, and nothing that reads the weight."""

# cause: parameter
# says: writes nan
# never: the input
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
state = model.state_dict()
state["2.weight"][0, 1] = float("nan")  # <- fault: op=index_put phase=forward
model.load_state_dict(state)
with torch.autocast("cpu", dtype=torch.bfloat16):
    loss = model(torch.randn(3, 4)).float().mean()
loss.backward()
