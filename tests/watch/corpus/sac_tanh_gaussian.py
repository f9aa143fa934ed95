"""SAC: tanh-squashed Gaussian with log(1 - tanh^2)."""

import torch
import torch.nn as nn


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(5, 16), nn.ReLU())
        self.mean = nn.Linear(16, 2)
        self.log_std = nn.Linear(16, 2)

    def sample(self, obs):
        h = self.trunk(obs)
        mean, log_std = self.mean(h), self.log_std(h).clamp(-5, 2)
        std = log_std.exp()
        normal = torch.distributions.Normal(mean, std)
        x_t = normal.rsample()
        action = torch.tanh(x_t)
        log_prob = normal.log_prob(x_t)
        log_prob -= torch.log(1 - action.pow(2))  # <- fault: op=log
        return action, log_prob.sum(1, keepdim=True)


torch.manual_seed(0)
actor = Actor()
q = nn.Linear(7, 1)
obs = torch.randn(16, 5)
obs[2] *= 80
action, log_pi = actor.sample(obs)
loss = (0.2 * log_pi - q(torch.cat([obs, action], 1))).mean()
loss.backward()
