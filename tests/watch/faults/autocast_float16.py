"""float16 autocast: a linear layer's result passes 65504."""

# cause: parameter
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64), torch.nn.Linear(64, 2))
with torch.no_grad():
    model[1].weight.fill_(3000.0)
with torch.autocast("cpu", dtype=torch.float16):
    out = model(torch.full((2, 64), 50.0))  # <- fault: op=linear module=1 phase=forward
    loss = out.float().pow(2).mean()
loss.backward()
