"""Attention over a sequence of length 0: no labels, so no word about a loss over classes."""

# says: nothing is left to attend to
# never: F.cross_entropy
# never: the loss, or mask
import torch

torch.manual_seed(0)
query = torch.nn.Linear(8, 8)
x = torch.randn(2, 5, 8)
scores = query(x) @ x.transpose(1, 2)
scores = scores.masked_fill(torch.tensor([[False] * 5, [True] * 5])[:, None], float("-inf"))
out = torch.softmax(scores, dim=-1) @ x  # <- fault: op=softmax rule=NH003 phase=forward
logits = torch.nn.functional.linear(out.mean(1), torch.randn(3, 8))
loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2]))
loss.backward()
