"""log(softmax(x)): the label's probability underflows to 0."""

import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
x = torch.tensor([[1.0, 2.0, 3.0, 4.0]]) * 300
p = torch.softmax(model(x), dim=-1)
loss = -torch.log(p.min(dim=-1).values).mean()  # <- fault: op=log rule=NH201 phase=forward
loss.backward()
