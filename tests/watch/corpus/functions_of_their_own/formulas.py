"""Formulas."""

import torch


def softplus(x):
    """As it is written in the paper."""
    return torch.log(1.0 + torch.exp(x))  # <- fault: op=exp


def normalise(v):
    """To length 1."""
    return v / v.norm(dim=-1, keepdim=True)
