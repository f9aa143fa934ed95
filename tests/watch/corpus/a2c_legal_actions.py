"""A2C with masked actions and an entropy bonus."""

import torch
import torch.nn as nn

torch.manual_seed(0)
actor = nn.Linear(6, 5)
obs = torch.randn(7, 6)
legal = torch.rand(7, 5) > 0.4
legal[:, 0] = True
logits = actor(obs).masked_fill(~legal, float("-inf"))
log_p = torch.log_softmax(logits, dim=-1)
p = log_p.exp()
actions = torch.zeros(7, dtype=torch.long)
adv = torch.randn(7)
policy_loss = -(log_p.gather(1, actions[:, None]).squeeze(1) * adv).mean()
entropy = -(p * log_p).sum(-1).mean()  # <- fault: op=mul
loss = policy_loss - 0.01 * entropy
loss.backward()
