"""A group of one reward: its spread is 0 / 0."""

import torch


def normalised(rewards):
    return (rewards - rewards.mean()) / (rewards.std() + 1e-6)  # <- fault: op=std


torch.manual_seed(0)
net = torch.nn.Linear(4, 1)
groups = net(torch.randn(7, 4)).squeeze(1).split([3, 3, 1])
loss = torch.cat([normalised(group) for group in groups]).pow(2).mean()
loss.backward()
