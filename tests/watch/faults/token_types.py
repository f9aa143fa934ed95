"""A transformer's all-zero token_type_ids are no labels, though they fit the logits."""

# never: targets
# never: F.cross_entropy
import torch

torch.manual_seed(0)
words, types = torch.nn.Embedding(20, 8), torch.nn.Embedding(2, 8)
head = torch.nn.Linear(8, 8)
tokens, token_type_ids = torch.randint(0, 20, (2, 5)), torch.zeros(2, 5, dtype=torch.int64)
hidden = words(tokens) + types(token_type_ids)
gates = torch.exp(head(hidden) * 300)  # <- fault: op=exp phase=forward
loss = (gates.sum(-1) * hidden.sum(-1)).mean()
loss.backward()
