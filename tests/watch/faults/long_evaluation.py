"""An evaluation of more calls than the recorder keeps does not make the next step unrepeatable."""

# never: could not be repeated
import torch

torch.manual_seed(0)
model = torch.nn.Linear(2, 2)
x = torch.randn(3, 2)
total = torch.zeros(())
with torch.no_grad():
    hidden = model(x)
    for _ in range(20_500):
        hidden = hidden * 0.5
loss = (model(x) * 0).sqrt().sum()  # <- fault: op=sqrt phase=backward
loss.backward()
