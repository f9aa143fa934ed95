"""Under autocast q and k are half already: switching autocast off around the product alone changes nothing."""

# says: .float()
import torch

torch.manual_seed(0)
query, key = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)
x = torch.randn(2, 5, 64)
x[1] *= 300
with torch.autocast("cpu", dtype=torch.float16):
    scores = query(x) @ key(x).transpose(1, 2)  # <- fault: op=matmul phase=forward
    attention = torch.softmax(scores / 8, dim=-1)
loss = attention.pow(2).mean()
loss.backward()
