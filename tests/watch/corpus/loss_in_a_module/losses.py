"""Losses."""

import torch


def negative_log_likelihood(probabilities, labels):
    """Of the true classes."""
    return -torch.log(probabilities).gather(1, labels[:, None]).mean()  # <- fault: op=log
