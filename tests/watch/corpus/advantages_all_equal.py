"""Advantages normalised by a spread of 0."""

import torch

torch.manual_seed(0)
value = torch.nn.Linear(4, 1)
rewards = torch.ones(6)
advantages = (rewards - rewards.mean()) / rewards.std()  # <- fault: op=div
loss = (advantages * value(torch.randn(6, 4)).squeeze(1)).mean()
loss.backward()
