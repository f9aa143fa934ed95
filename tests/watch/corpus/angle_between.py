"""The angle between equal directions."""

import torch

torch.manual_seed(0)
u = torch.nn.functional.normalize(torch.randn(4, 3), dim=-1)
w = torch.nn.Parameter(u.clone())
cosine = (torch.nn.functional.normalize(w, dim=-1) * u).sum(-1)
cosine = cosine + torch.tensor([1e-6, 0.0, 0.0, 0.0])
angle = torch.acos(cosine)  # <- fault: op=acos
angle.mean().backward()
