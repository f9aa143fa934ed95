"""A line of the script writes NaN into the batch itself."""

# cause: data
# says: writes nan
import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
batch = torch.randn(5, 4)
mean = batch.mean()
batch[2] = float("nan")  # <- fault: op=index_put phase=forward
loss = (model(batch) - mean).pow(2).mean()
loss.backward()
