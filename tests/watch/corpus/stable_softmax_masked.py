"""The stable softmax by hand, over a row that is masked as a whole."""

import torch


def softmax(x):
    x = x - x.max(dim=-1, keepdim=True).values  # <- fault: op=sub
    e = torch.exp(x)
    return e / e.sum(dim=-1, keepdim=True)


scores = torch.nn.Parameter(torch.zeros(2, 3))
mask = torch.tensor([[True, False, False], [True, True, True]])
(softmax(scores.masked_fill(mask, float("-inf"))) * torch.arange(3.0)).sum().backward()
