"""The cosine of a vector with itself rounds to above 1, where acos is NaN."""

# says: rounding
# says: clamp
# never: Check the range
import torch

torch.manual_seed(0)
embed = torch.nn.Linear(50, 50)
a = embed(torch.randn(400, 50))
unit = a / a.norm(dim=-1, keepdim=True)
cosine = (unit * unit.detach()).sum(-1)
angle = torch.acos(cosine)  # <- fault: op=acos phase=forward
loss = angle.mean()
loss.backward()
