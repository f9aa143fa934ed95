"""Running statistics that were NaN when they were loaded, read in evaluation mode: those are the fault."""

# cause: parameter
# says: reset_running_stats
# never: Clean the data
import io

import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
state["1.running_var"].numpy()[2] = float("nan")
file = io.BytesIO()
torch.save(state, file)
file.seek(0)
model.load_state_dict(torch.load(file))  # <- fault: name=1.running_var phase=input
model.eval()
loss = model(torch.randn(5, 3)).mean()
loss.backward()
