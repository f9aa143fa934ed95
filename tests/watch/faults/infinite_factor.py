"""A factor that is infinite: the number is named, and nothing is said of inputs that grew."""

# cause: data
# says: the line brings the number inf in
# never: grew
# never: overflow:
import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    x = torch.randn(8, 4)
    factor = float("inf") if step == 1 else 1.0
    x = x * factor  # <- fault: op=mul phase=forward
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
