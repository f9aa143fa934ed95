"""GRPO: group advantages and a k3 penalty."""

import torch
import torch.nn as nn

torch.manual_seed(0)
policy = nn.Linear(8, 12)
x = torch.randn(6, 5, 8)
tokens = torch.randint(0, 12, (6, 5))
completion_mask = torch.ones(6, 5)
completion_mask[2, 3:] = 0
rewards = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])


def per_token_logps(model, x, tokens):
    return model(x).log_softmax(-1).gather(2, tokens.unsqueeze(2)).squeeze(2)


ref_per_token_logps = per_token_logps(policy, x, tokens).detach()
ref_per_token_logps[2, 4] = 120.0
old = per_token_logps(policy, x, tokens).detach()
new = per_token_logps(policy, x, tokens)
advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
per_token_kl = torch.exp(ref_per_token_logps - new) - (ref_per_token_logps - new) - 1  # <- fault: op=exp
ratio = torch.exp(new - old)
per_token_loss = -torch.min(ratio * advantages[:, None], ratio.clamp(0.8, 1.2) * advantages[:, None])
per_token_loss = per_token_loss + 0.04 * per_token_kl
loss = ((per_token_loss * completion_mask).sum(1) / completion_mask.sum(1)).mean()
loss.backward()
