"""A hand-written norm of a vector that is 0: the inner derivative 0 times the outer inf."""

import torch

vectors = torch.nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
lengths = torch.pow((vectors * vectors).sum(-1), 0.5)  # <- fault: op=pow phase=backward
loss = lengths.sum()
loss.backward()
