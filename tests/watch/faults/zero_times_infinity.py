"""A mask written as a product: 0 * -inf is NaN, although the mask itself is legal."""

import torch

scores = torch.nn.Parameter(torch.randn(3, 3))
keep = torch.tril(torch.ones(3, 3))
bias = torch.full((3, 3), float("-inf"))
masked = scores * keep + bias * (1 - keep)  # <- fault: op=mul phase=forward
loss = masked.softmax(-1).sum()
loss.backward()
