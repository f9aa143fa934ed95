"""A row of -inf that goes into a layer is no mask: the report says which line wrote it."""

# cause: data
# says: infinity_before_a_layer.py:15 met an operation that cannot digest it
# says: Find out why index_put
# never: intended
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(5):
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
    if step == 2:
        x[0] = -float("inf")
    loss = torch.nn.functional.cross_entropy(model(x), y)  # <- fault: op=linear phase=forward
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
