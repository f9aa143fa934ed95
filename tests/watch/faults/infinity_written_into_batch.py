"""A reading that is written as infinite within the step: the line that writes it, and no word of a mask."""

# cause: data
# says: the infinity that this line writes reaches the loss
# never: intended
# never: on purpose
import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(5):
    x, y = torch.randn(8, 4), torch.randn(8, 1)
    if step == 2:
        x[3, 1] = float("inf")  # <- fault: op=index_put phase=forward
    loss = ((model(x) - y) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
