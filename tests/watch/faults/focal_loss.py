"""A focal loss: the probability has underflowed, and the factor in front of the log is part of the loss."""

# says: log_softmax
# never: F.cross_entropy(
import torch

torch.manual_seed(0)
model = torch.nn.Linear(6, 4)
with torch.no_grad():
    model.weight.mul_(400)
labels = torch.randint(0, 4, (9,))
p = torch.softmax(model(torch.randn(9, 6)), dim=-1).gather(1, labels[:, None])[:, 0]
loss = (-((1 - p) ** 2) * torch.log(p)).mean()  # <- fault: op=log phase=forward
loss.backward()
