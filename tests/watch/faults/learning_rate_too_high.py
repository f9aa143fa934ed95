"""The loss grows a thousandfold in every step until it overflows."""

# cause: learning rate
# says: the loss was
# says: learning rate
import torch

torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=3000.0)
x = torch.randn(16, 8)
y = x.sum(1, keepdim=True)
for _ in range(40):
    loss = (model(x) - y).pow(2).mean()  # <- fault: phase=forward
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
