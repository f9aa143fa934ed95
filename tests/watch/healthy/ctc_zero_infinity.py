"""A target longer than its input is left out by zero_infinity."""

import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(8, 10)
log_p = model(torch.randn(4, 2, 8)).log_softmax(-1)
targets = torch.randint(1, 10, (2, 6))
lengths = torch.tensor([2, 6])
loss = F.ctc_loss(log_p, targets, torch.tensor([4, 4]), lengths, zero_infinity=True)
loss.backward()
