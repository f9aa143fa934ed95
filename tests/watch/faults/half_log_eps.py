"""log(p + 1e-8) in float16: the 1e-8 is 0."""

# says: 1e-08 is 0 in float16
import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 3, dtype=torch.float16)
x = torch.randn(5, 4, dtype=torch.float16) * 40
p = torch.softmax(model(x), dim=-1)
loss = -torch.log(p + 1e-8).float().mean()  # <- fault: op=log phase=forward
loss.backward()
