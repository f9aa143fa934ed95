"""DPO loss by hand."""

import torch
import torch.nn as nn

torch.manual_seed(0)
policy, reference = nn.Linear(8, 30), nn.Linear(8, 30)


def logps(model, x, tokens, mask):
    logits = model(x)
    lp = logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    return (lp * mask).sum(-1)


def dpo_loss(pc, pr, rc, rr, beta=0.1):
    logits = (pc - pr) - (rc - rr)
    return -torch.log(torch.sigmoid(beta * logits)).mean()  # <- fault: op=log


x = torch.randn(4, 6, 8)
x[1] *= 300
tokens_c, tokens_r = torch.randint(0, 30, (4, 6)), torch.randint(0, 30, (4, 6))
mask = torch.ones(4, 6)
with torch.no_grad():
    rc, rr = logps(reference, x, tokens_c, mask), logps(reference, x, tokens_r, mask)
loss = dpo_loss(logps(policy, x, tokens_c, mask), logps(policy, x, tokens_r, mask), rc, rr)
loss.backward()
