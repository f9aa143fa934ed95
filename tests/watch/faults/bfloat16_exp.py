"""bfloat16 logits: exp(89) is inf there too."""

import torch

scale = torch.nn.Parameter(torch.tensor(1.0))
logits = torch.tensor([[10.0, 95.0]])
with torch.autocast("cpu", dtype=torch.bfloat16):
    x = (logits * scale).bfloat16()
    e = x.exp()  # <- fault: op=exp rule=NH101 phase=forward
    p = e / e.sum(-1, keepdim=True)
p.float().sum().backward()
