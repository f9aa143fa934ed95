"""A broken checkpoint: one weight is NaN before the first step, and it is the only culprit."""

# cause: parameter
import io

# never: the input
# never: and 1 more
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
state["2.weight"].numpy()[1, 2] = float("nan")
file = io.BytesIO()
torch.save(state, file)
file.seek(0)
model.load_state_dict(torch.load(file))
loss = model(torch.randn(3, 4)).sum()  # <- fault: name=2.weight phase=parameter
loss.backward()
