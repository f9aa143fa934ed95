"""GAN with log(1 - D(G(z)))."""

import torch
import torch.nn as nn

torch.manual_seed(0)
G = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 6))
D = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1), nn.Sigmoid())
opt_d = torch.optim.SGD(D.parameters(), lr=0.01)
opt_g = torch.optim.SGD(G.parameters(), lr=0.01)
real = torch.randn(16, 6)
real[3] *= 400
for step in range(3):
    z = torch.randn(16, 4)
    fake = G(z) * (1.0 if step < 1 else 300.0)
    d_real, d_fake = D(real), D(fake.detach())
    d_loss = -(torch.log(d_real) + torch.log(1 - d_fake)).mean()  # <- fault: op=log
    opt_d.zero_grad()
    d_loss.backward()
    opt_d.step()
    g_loss = -torch.log(D(fake)).mean()
    opt_g.zero_grad()
    g_loss.backward()
    opt_g.step()
