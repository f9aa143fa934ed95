"""A padded sequence whose every key is masked."""

import torch

torch.manual_seed(0)
query, key = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
x = torch.randn(2, 5, 8)
lengths = torch.tensor([5, 0])
padding = torch.arange(5)[None, :] >= lengths[:, None]
scores = query(x) @ key(x).transpose(1, 2)
scores = scores.masked_fill(padding[:, None, :], float("-inf"))
attention = torch.softmax(scores, dim=-1)  # <- fault: op=softmax rule=NH003 phase=forward
loss = (attention @ x).mean()
loss.backward()
