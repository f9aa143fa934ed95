"""Attention scores beyond 65,504 before they are scaled; the inputs are half by themselves, not by autocast."""

# says: .float()
# never: F.cross_entropy
# never: learning rate
import torch

torch.manual_seed(0)
query = torch.nn.Linear(64, 64, dtype=torch.float16)
key = torch.nn.Linear(64, 64, dtype=torch.float16)
x = torch.randn(2, 5, 64, dtype=torch.float16)
x[1] *= 300
scores = query(x) @ key(x).transpose(1, 2)  # <- fault: op=matmul phase=forward
attention = torch.softmax(scores / 8, dim=-1)
loss = (attention @ x).float().pow(2).mean()
loss.backward()
