"""1e-8 is 0 in float16: it protects nothing."""

# says: 1e-08 is 0 in float16
import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 4, dtype=torch.float16)
hidden = model(torch.randn(3, 4, dtype=torch.float16))
hidden = hidden * torch.tensor([[1], [0], [1]], dtype=torch.float16)
unit = hidden / (hidden.norm(dim=-1, keepdim=True) + 1e-8)  # <- fault: op=div phase=forward
loss = unit.float().mean()
loss.backward()
