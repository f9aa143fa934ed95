"""A DPO loss written by hand, and the same with logsigmoid, for --function."""

import torch
import torch.nn.functional as F


def dpo(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    """-log sigmoid(beta * margin): log(0) from a margin of -104 / beta down."""
    margin = (chosen_logps - rejected_logps) - (ref_chosen_logps - ref_rejected_logps)
    probability = torch.sigmoid(beta * margin)
    return -torch.log(probability).mean()


def dpo_stable(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    """The logarithm of the sigmoid as one operation."""
    margin = (chosen_logps - rejected_logps) - (ref_chosen_logps - ref_rejected_logps)
    return -F.logsigmoid(beta * margin).mean()
