"""Sparse gradients of an embedding."""

import torch

torch.manual_seed(0)
embedding = torch.nn.Embedding(10, 3, sparse=True)
optimizer = torch.optim.SparseAdam(embedding.parameters())
for _ in range(2):
    loss = embedding(torch.tensor([1, 1, 4])).pow(2).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
