"""The log of a sum of exps is logsumexp, no softmax."""

# says: torch.logsumexp
# never: cross_entropy
import torch

torch.manual_seed(0)
x = torch.nn.Parameter(torch.randn(4, 5) * 60)
energy = torch.log(torch.exp(x).sum(dim=-1))  # <- fault: op=exp rule=NH101 phase=forward
loss = energy.mean()
loss.backward()
