"""Poisson's loss takes exp of its input."""

# says: bound the argument of poisson_nll_loss
# never: cross_entropy
import torch
import torch.nn.functional as F

torch.manual_seed(0)
rate = torch.nn.Parameter(torch.tensor([1.0, 120.0]))
loss = F.poisson_nll_loss(rate, torch.tensor([2.0, 3.0]))  # <- fault: op=poisson_nll_loss phase=forward
loss.backward()
