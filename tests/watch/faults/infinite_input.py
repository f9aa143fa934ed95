"""One inf among the numbers of a data set is no mask that met the wrong operation."""

# cause: data
# says: of the batch replaced by a sound one the repeated step is finite
# never: intended
import torch

torch.manual_seed(0)
layer = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
data = torch.randn(32, 4)
data[17, 2] = float("inf")
for x in data.clone().split(8):
    batch = torch.from_numpy(x.numpy())
    loss = layer(batch).pow(2).mean()  # <- fault: input=batch phase=input
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
