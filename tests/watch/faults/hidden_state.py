"""A layer with a memory of its own: no repetition of the step is bad, so the following ones are watched."""

import torch


class Dither(torch.autograd.Function):
    divisor = 1

    @staticmethod
    def forward(ctx, x):
        divisor, Dither.divisor = Dither.divisor, 1
        return x / divisor  # <- fault: op=div phase=forward found_by=watching

    @staticmethod
    def backward(ctx, grad):
        return grad


torch.manual_seed(0)
model = torch.nn.Linear(2, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(12):
    Dither.divisor = int(step < 2)
    loss = Dither.apply(model(torch.ones(1, 2))).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
