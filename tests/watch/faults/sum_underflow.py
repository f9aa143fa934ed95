"""Every exp of a row underflows: 0 / 0."""

import torch

logits = torch.nn.Parameter(torch.tensor([[1.0, 2.0, 3.0], [-200.0, -201.0, -202.0]]))
e = torch.exp(logits)
p = e / e.sum(-1, keepdim=True)  # <- fault: op=div rule=NH103 phase=forward
loss = -torch.log(p[:, 0]).mean()
loss.backward()
