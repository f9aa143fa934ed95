"""CLIP with a learned temperature and a softmax spelled out."""

import torch
import torch.nn as nn


class CLIP(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Linear(10, 8)
        self.text = nn.Linear(6, 8)
        self.logit_scale = nn.Parameter(torch.tensor(4.6052))

    def forward(self, image, text):
        i = self.image(image)
        t = self.text(text)
        i = i / i.norm(dim=-1, keepdim=True)
        t = t / t.norm(dim=-1, keepdim=True)
        return self.logit_scale.exp() * i @ t.t()


def contrastive(logits):
    exp_logits = torch.exp(logits)  # <- fault: op=exp
    log_prob = logits - torch.log(exp_logits.sum(1, keepdim=True))
    return -log_prob.diag().mean()


torch.manual_seed(2)
model = CLIP()
image, text = torch.randn(12, 10), torch.randn(12, 6)
logits = model(image, text)
loss = (contrastive(logits) + contrastive(logits.t())) / 2
loss.backward()
