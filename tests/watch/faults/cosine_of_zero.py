"""Cosine similarity by hand: one vector is 0."""

# says: the norm of a zero vector
import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 4, bias=False)
x = torch.randn(3, 4)
x[1] = 0
y = model(x)
unit = y / torch.linalg.vector_norm(y, dim=-1, keepdim=True)  # <- fault: op=div phase=forward
loss = (unit @ unit.T).mean()
loss.backward()
