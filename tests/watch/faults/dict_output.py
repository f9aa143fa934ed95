"""A model that returns a dict, as many libraries do."""

import torch


class Attention(torch.nn.Module):
    def forward(self, x):
        return x / x.sum(-1, keepdim=True)  # <- fault: op=div module=attention phase=forward


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 3, bias=False)
        self.attention = Attention()

    def forward(self, x):
        return {"scores": self.attention(self.head(x)), "hidden": [x]}


model = Model()
out = model(torch.zeros(2, 3))
loss = out["scores"].mean()
loss.backward()
