"""A normalisation made once, 0 / 0 in one column, and read by every step: the line that made it is the fault."""

# never: Clean the data
import torch

torch.manual_seed(0)


class Scaled(torch.nn.Module):
    def __init__(self, data):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        spread = data.amax(0) - data.amin(0)
        self.register_buffer("scale", spread / spread.sum() / spread)  # <- fault: op=div phase=forward

    def forward(self, x):
        return self.layer(x * self.scale)


data = torch.rand(10, 4)
data[:, 2] = 0.5
model = Scaled(data)
loss = model(data).pow(2).mean()
loss.backward()
