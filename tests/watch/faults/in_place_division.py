"""Normalising in place by a sum of 0."""

import torch

weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
scores = weight.clone()
scores /= scores.sum(-1, keepdim=True)  # <- fault: op=div phase=forward
loss = scores.pow(2).sum()
loss.backward()
