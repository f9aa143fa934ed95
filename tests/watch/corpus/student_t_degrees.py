"""Degrees of freedom of a Student-t by relu: 0 is a pole of lgamma, then log of 0, then a division by 0."""

import torch

torch.manual_seed(0)
net = torch.nn.Linear(4, 3)
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)


def student_t(out, y):
    df, loc, scale = torch.relu(out[:, 0]), out[:, 1], torch.nn.functional.softplus(out[:, 2])
    z = (y - loc) / scale
    norm = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * torch.log(df)  # <- fault: op=lgamma
    return -(norm - torch.log(scale) - (df + 1) / 2 * torch.log1p(z**2 / df)).mean()


for step in range(4):
    x = torch.randn(8, 4)
    loss = student_t(net(x), torch.randn(8))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
