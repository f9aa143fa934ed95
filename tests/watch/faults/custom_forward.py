"""A custom Function whose forward goes bad."""

import torch


class Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        e = torch.exp(x)  # <- fault: op=exp rule=None phase=forward
        ctx.save_for_backward(e)
        return torch.log1p(e)

    @staticmethod
    def backward(ctx, grad):
        (e,) = ctx.saved_tensors
        return grad * e / (1 + e)


x = torch.nn.Parameter(torch.tensor([1.0, 100.0]))
loss = Softplus.apply(x).sum()
loss.backward()
