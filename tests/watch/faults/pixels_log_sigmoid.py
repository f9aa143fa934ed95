"""Binary cross entropy over pixels, written with the log of a sigmoid that has rounded to 1."""

# says: logsigmoid
# never: F.cross_entropy
import torch

torch.manual_seed(0)
decoder = torch.nn.Linear(4, 16)
images = (torch.rand(5, 16) > 0.5).float()
codes = torch.randn(5, 4)
codes[2] *= 400
p = torch.sigmoid(decoder(codes))
log_p = torch.log(p)  # <- fault: op=log phase=forward
loss = -(images * log_p + (1 - images) * torch.log(1 - p)).sum(-1).mean()
loss.backward()
