"""A VAE whose log-variance is clamped."""

import torch

logvar = torch.nn.Parameter(torch.tensor([300.0, -400.0, 1.0]))
bounded = logvar.clamp(-30, 20)
(-0.5 * (1 + bounded - bounded.exp()).sum()).backward()
