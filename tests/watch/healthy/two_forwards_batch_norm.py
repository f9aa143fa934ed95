"""A critic with BatchNorm sees two batches in a step, another in evaluation mode, and a teacher follows by EMA."""

import copy

import torch
import torch.nn.functional as F

torch.manual_seed(0)
critic = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 1))
teacher = copy.deepcopy(critic)
optimizer = torch.optim.Adam(critic.parameters(), lr=0.01)
for _ in range(3):
    real, fake = critic(torch.randn(5, 4)), critic(torch.randn(5, 4) + 1)
    critic.eval()
    anchor = critic(torch.randn(5, 4))
    critic.train()
    with torch.no_grad():
        target = teacher(torch.randn(5, 4))
        for mine, its in zip(critic.parameters(), teacher.parameters(), strict=True):
            its.mul_(0.9).add_(mine, alpha=0.1)
    loss = F.softplus(-real).mean() + F.softplus(fake).mean() + (anchor - target).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
