"""A custom Function whose backward goes bad."""

import torch


class Root(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        root = x.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx, grad):
        (root,) = ctx.saved_tensors
        return grad / (2 * root)  # <- fault: op=div phase=backward


x = torch.nn.Parameter(torch.tensor([0.0, 1.0]))
loss = Root.apply(x).sum()
loss.backward()
