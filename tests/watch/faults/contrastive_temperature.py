"""Similarities divided by a small temperature and exponentiated by hand: a row of exps is divided by its sum."""

# says: log_softmax
# never: F.cross_entropy
import torch

torch.manual_seed(0)
encoder = torch.nn.Linear(16, 8)
a, b = torch.randn(6, 16), torch.randn(6, 16)
a = torch.nn.functional.normalize(encoder(a), dim=-1)
b = torch.nn.functional.normalize(encoder(b), dim=-1)
similarity = torch.exp(a @ b.T / 0.001)  # <- fault: op=exp rule=NH101 phase=forward
loss = -torch.log(similarity.diagonal() / similarity.sum(dim=1)).mean()
loss.backward()
