"""The log-likelihood of a Gaussian whose scale has underflowed."""

import torch


def log_likelihood(x, mu, log_sigma):
    sigma = torch.exp(log_sigma)
    return -0.5 * ((x - mu) / sigma) ** 2 - torch.log(sigma)  # <- fault: op=div


log_sigma = torch.nn.Parameter(torch.tensor([-120.0, 0.0]))
loss = -log_likelihood(torch.tensor([1.0, 2.0]), torch.zeros(2), log_sigma).mean()
loss.backward()
