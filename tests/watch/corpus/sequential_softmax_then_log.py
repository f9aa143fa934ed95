"""A Sequential that ends in nn.Softmax."""

import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.Softmax(dim=1))
labels = torch.randint(0, 5, (16,))
p = model(torch.randn(16, 8) * 500)
loss = -(torch.nn.functional.one_hot(labels, 5) * torch.log(p)).sum(1).mean()  # <- fault: op=log
loss.backward()
