"""Training on the perplexity."""

import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
loss = F.cross_entropy(model(torch.randn(5, 4) * 900), torch.tensor([0, 1, 2, 0, 1]))
perplexity = torch.exp(loss)  # <- fault: op=exp
perplexity.backward()
