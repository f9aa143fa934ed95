"""A linear-chain CRF, forward algorithm spelled out."""

import torch
import torch.nn as nn


class CRF(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.trans = nn.Parameter(torch.randn(n, n))

    def log_partition(self, emissions):
        alpha = emissions[0]
        for e in emissions[1:]:
            scores = alpha[:, None] + self.trans + e[None, :]
            alpha = torch.log(torch.exp(scores).sum(0))  # <- fault: op=exp
        return torch.log(torch.exp(alpha).sum())

    def score(self, emissions, tags):
        total = emissions[0, tags[0]]
        for t in range(1, len(tags)):
            total = total + self.trans[tags[t - 1], tags[t]] + emissions[t, tags[t]]
        return total


torch.manual_seed(0)
lstm, crf = nn.Linear(6, 4), CRF(4)
x = torch.randn(60, 6) * 4
tags = torch.randint(0, 4, (60,))
em = lstm(x)
loss = crf.log_partition(em) - crf.score(em, tags)
loss.backward()
