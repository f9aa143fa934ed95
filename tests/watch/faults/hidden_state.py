"""A layer with a memory of its own: the step cannot be repeated, so the following ones are watched."""

import torch


class Dither(torch.autograd.Function):
    calls = 0

    @staticmethod
    def forward(ctx, x):
        Dither.calls += 1
        return x / (Dither.calls % 3)  # <- fault: op=div phase=forward found_by=watching

    @staticmethod
    def backward(ctx, grad):
        return grad


torch.manual_seed(0)
model = torch.nn.Linear(2, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(12):
    loss = Dither.apply(model(torch.ones(1, 2))).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
