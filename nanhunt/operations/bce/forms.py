"""Ways of writing binary cross entropy, focal loss (Lin et al. 2017, arXiv:1708.02002) and preference losses.

A preference (DPO, arXiv:2305.18290, eq. 7; reward models) is the binary cross entropy of one margin with the label 1:
-log sigmoid(beta ((chosen - ref_chosen) - (rejected - ref_rejected))). Values and units are those of the first tensor.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.operations.bce.options import BceOptions
from nanhunt.operations.operation import Plan, Sliced

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Tensors

PREFERENCE = ("chosen", "rejected", "ref_chosen", "ref_rejected")


def plan(shapes: Mapping[str, tuple[int, ...]], options: BceOptions) -> Plan:
    """Every logit, or every pair, is a unit of its own. Raises NanhuntError unless all have the same shape."""
    first = next(iter(shapes.values()))
    told = " and ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
    if any(shape != first for shape in shapes.values()):
        raise NanhuntError(
            f"--op bce: {told} do not fit.",
            "They hold one number a label (or pair): F.binary_cross_entropy_with_logits refuses other shapes as well.",
        )
    if ("chosen" in shapes and "rejected" not in shapes) or ("ref_chosen" in shapes) != (
        "ref_rejected" in shapes
    ):
        raise NanhuntError(
            f"--op bce: a preference has two sides, and here is {told}.",
            "Name the other: --role rejected=NAME.",
        )
    return Plan(first, (), {name: Sliced(first, 0) for name in shapes})


def unused(problem: Any) -> Collection[str]:
    """Nobody has probabilities of margins, and only a focal loss is modulated."""
    if "logits" not in problem.tensors:
        return ("bce-of-sigmoid", "modulated")
    return () if problem.options.gamma else ("modulated",)


def logits(t: Tensors, options: BceOptions) -> torch.Tensor:
    """The logits, or the margin of a preference."""
    if "logits" in t:
        return t["logits"]
    margin = t["chosen"] - t["rejected"]
    if "ref_chosen" in t:
        margin = margin - (t["ref_chosen"] - t["ref_rejected"])
    return options.beta * margin


def targets(t: Tensors, options: BceOptions) -> torch.Tensor:
    """The targets, as floats; of a preference the chosen one."""
    import torch

    if "logits" not in t:
        return torch.ones_like(t["chosen"])
    return t["targets"] if t["targets"].is_floating_point() else t["targets"].to(t["logits"].dtype)


def naive(t: Tensors, options: BceOptions) -> torch.Tensor:
    """s = sigmoid(x); -(y log s + (1 - y) log(1 - s)), of a preference -log s; focal: times (1 - p)**gamma."""
    import torch

    x, y = logits(t, options), targets(t, options)
    s = torch.sigmoid(x)
    if "logits" not in t:
        return -torch.log(s)
    positive, negative = torch.log(s), torch.log(1 - s)
    if options.pos_weight != 1.0:
        positive = options.pos_weight * positive
    if options.gamma:
        positive, negative = (1 - s) ** options.gamma * positive, s**options.gamma * negative
    return -(y * positive + (1 - y) * negative)


def bce_of_sigmoid(t: Tensors, options: BceOptions) -> torch.Tensor:
    """F.binary_cross_entropy(sigmoid(x), y), whose logarithms are clamped at -100."""
    import torch
    import torch.nn.functional as F

    x, y = t["logits"], targets(t, options)
    valid = (
        (y >= 0) & (y <= 1) & ~x.isnan()
    )  # for a single other one PyTorch raises, and there is no loss at all
    all_valid = bool(valid.all())  # nearly always, and what is left out then is a third of the time
    if not all_valid:
        x, y = x.where(valid, 0.0), y.where(valid, 0.0)
    losses = F.binary_cross_entropy(torch.sigmoid(x), y, reduction="none")
    if options.pos_weight != 1.0:
        losses = losses * (1 + (options.pos_weight - 1) * y)
    if options.gamma:
        losses = losses * _modulation(x, y, options)
    return losses if all_valid else losses.where(valid, math.nan)


def logsigmoid(t: Tensors, options: BceOptions) -> torch.Tensor:
    """F.logsigmoid for both logarithms: log s = logsigmoid of x, log(1 - s) of -x; focal: exp of them."""
    return _by_logsigmoid(t, options)


def modulated(t: Tensors, options: BceOptions) -> torch.Tensor:
    """F.binary_cross_entropy_with_logits(x, y) * (1 - p_t)**gamma, as torchvision.ops.sigmoid_focal_loss has it."""
    x, y = logits(t, options), targets(t, options)
    return _with_logits(x, y, options) * _modulation(x, y, options)


def fused_call(problem: Any) -> str:
    """PyTorch has no focal loss: its logarithms by F.logsigmoid are the nearest."""
    is_focal = problem.options.gamma and "logits" in problem.tensors
    return "F.logsigmoid for both logarithms" if is_focal else "F.binary_cross_entropy_with_logits"


def fused(t: Tensors, options: BceOptions) -> torch.Tensor:
    """F.binary_cross_entropy_with_logits(x, y); focal: exp(gamma logsigmoid(-x)) for (1 - p)**gamma."""
    if options.gamma and "logits" in t:
        return _by_logsigmoid(t, options)
    return _with_logits(logits(t, options), targets(t, options), options)


def _with_logits(x: torch.Tensor, y: torch.Tensor, options: BceOptions) -> torch.Tensor:
    import torch
    import torch.nn.functional as F

    weight = None if options.pos_weight == 1.0 else torch.tensor(options.pos_weight, dtype=x.dtype)
    return F.binary_cross_entropy_with_logits(x, y.to(x.dtype), reduction="none", pos_weight=weight)


def _modulation(x: torch.Tensor, y: torch.Tensor, options: BceOptions) -> torch.Tensor:
    """(1 - p_t)**gamma with p_t the probability of the label."""
    import torch

    s = torch.sigmoid(x)
    probability: torch.Tensor = (1 - (y * s + (1 - y) * (1 - s))) ** options.gamma
    return probability


def _by_logsigmoid(t: Tensors, options: BceOptions) -> torch.Tensor:
    import torch.nn.functional as F

    x, y = logits(t, options), targets(t, options)
    positive, negative = F.logsigmoid(x), F.logsigmoid(-x)
    if "logits" not in t:
        return -positive
    if options.gamma:
        up, down = (options.gamma * negative).exp(), (options.gamma * positive).exp()
        positive, negative = up * positive, down * negative
    if options.pos_weight != 1.0:
        positive = options.pos_weight * positive
    return -(y * positive + (1 - y) * negative)


def _is_plain(t: Tensors, options: BceOptions) -> bool:
    """Whether a loss is that of its label and nothing else: a preference, or logits without focus and weight."""
    return "logits" not in t or (not options.gamma and options.pos_weight == 1.0)


def truth(t: Tensors, options: BceOptions) -> torch.Tensor:
    """y softplus(-x) + (1 - y) softplus(x): two terms that are never negative, so nothing cancels."""
    import torch

    x, y = logits(t, options), targets(t, options)
    zero = torch.zeros_like(x)
    # Twice as fast as F.logsigmoid in float64; clamp and abs written out disagree about the gradient at 0.
    if _is_plain(t, options) and torch.equal(y, (y == 1).to(y.dtype)):
        return torch.logaddexp(zero, x * (1 - 2 * y))  # the one term that counts, at half the price
    up, down = torch.logaddexp(zero, -x), torch.logaddexp(zero, x)
    if options.gamma and "logits" in t:
        up, down = up * (-options.gamma * down).exp(), down * (-options.gamma * up).exp()
    if "logits" in t and options.pos_weight != 1.0:
        up = up * options.pos_weight
    if bool(x.abs().amax().isfinite() if x.numel() else True):
        return y * up + (1 - y) * down
    positive = torch.where(y == 0, 0.0, y * up)  # 0 * inf is 0 in truth
    return positive + torch.where(y == 1, 0.0, (1 - y) * down)
