"""A VAE; the log-variance runs away."""

import torch


class VAE(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = torch.nn.Linear(6, 4)
        self.decode = torch.nn.Linear(2, 6)

    def forward(self, x):
        mu, logvar = self.encode(x).chunk(2, dim=-1)
        std = torch.exp(0.5 * logvar)  # <- fault: op=exp
        return self.decode(mu + std * torch.randn_like(std)), mu, logvar


torch.manual_seed(0)
model = VAE()
x = torch.randn(8, 6)
x[3] *= 600
out, mu, logvar = model(x)
loss = (out - x).pow(2).mean() - 0.5 * (1 + logvar - mu.pow(2)).mean()
loss.backward()
