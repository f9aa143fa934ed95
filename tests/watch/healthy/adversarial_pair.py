"""Two optimizers, retained graphs, a gradient penalty."""

import torch

torch.manual_seed(0)
maker, critic = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
first, second = torch.optim.Adam(maker.parameters()), torch.optim.RMSprop(critic.parameters())
for _ in range(3):
    fake = maker(torch.randn(4, 2))
    judged = critic(fake)
    first.zero_grad()
    (-judged.mean()).backward(retain_graph=True)
    first.step()
    probe = torch.randn(4, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(critic(probe).sum(), probe, create_graph=True)
    loss = critic(fake.detach()).mean() + (slope.norm(dim=-1) - 1).pow(2).mean()
    second.zero_grad()
    loss.backward()
    second.step()
