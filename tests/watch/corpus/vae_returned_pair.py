"""A VAE whose encoder returns the halves of one layer."""

import torch
from torch import nn
from torch.nn import functional as F


class VAE(nn.Module):
    def __init__(self, d=12, z=3):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(d, 16), nn.ReLU(), nn.Linear(16, 2 * z))
        self.decoder = nn.Sequential(nn.Linear(z, 16), nn.ReLU(), nn.Linear(16, d))

    def encode(self, x):
        return self.encoder(x).chunk(2, dim=-1)

    def reparameterize(self, mu, log_var):
        std = torch.exp(0.5 * log_var)  # <- fault: op=exp
        return mu + torch.randn_like(std) * std

    def forward(self, x):
        mu, log_var = self.encode(x)
        z = self.reparameterize(mu, log_var)
        return self.decoder(z), mu, log_var


def loss_fn(recon, x, mu, log_var):
    rec = F.mse_loss(recon, x)
    kl = torch.mean(-0.5 * torch.sum(1 + log_var - mu**2 - log_var.exp(), dim=1), dim=0)
    return rec + 1e-3 * kl


torch.manual_seed(3)
model = VAE()
opt = torch.optim.Adam(model.parameters(), 1e-3)
data = torch.randn(4, 8, 12)
data[2, 3] *= 700
for x in data:
    recon, mu, log_var = model(x)
    loss = loss_fn(recon, x, mu, log_var)
    opt.zero_grad()
    loss.backward()
    opt.step()
