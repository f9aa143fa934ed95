"""logsumexp of nothing is -inf; a difference of two such is NaN."""

import torch

scores = torch.nn.Parameter(torch.randn(2, 3))
masked = scores.masked_fill(torch.tensor([[False] * 3, [True] * 3]), float("-inf"))
total = torch.logsumexp(masked, dim=-1, keepdim=True)
loss = (masked - total)[:, 0].sum()  # <- fault: op=sub phase=forward
loss.backward()
