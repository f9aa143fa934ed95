"""How the tensors of the objective are cut, and which of their numbers spell trouble."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.load.roles import is_called
from nanhunt.load.tensor import FLOATING
from nanhunt.operations.operation import Block, Plan, Sliced
from nanhunt.operations.ppo import forms
from nanhunt.operations.ppo.options import PpoOptions

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from nanhunt.load.tensor import Tensor
    from nanhunt.operations.operation import Bools, Tensors

LOG_PROBS = ("log_probs", "old_log_probs", "ref_log_probs")
PADDING = r"(.*[_-])?pad(ding)?[_-]mask"
FLOATS = (*LOG_PROBS, "advantages")


def plan(shapes: Mapping[str, tuple[int, ...]], options: PpoOptions) -> Plan:
    """A token is a unit, or a sequence at the level of sequences.

    Log-probabilities (..., T), mask alike, advantages (..., T), (..., 1) or (...): (B, T) and (B,) in most dumps.
    Raises NanhuntError for shapes that do not fit, a level of sequences without an axis of tokens, and a dual clip up
    to 1.
    """
    whole = shapes["log_probs"]
    if 0 < options.clip_dual <= 1:
        raise NanhuntError(
            f"--clip-dual {options.clip_dual:g} would clip ratios that have not grown.",
            "Give a number above 1 (3 is usual), or leave it out.",
        )
    for name, shape in shapes.items():
        per_sequence = name == "advantages" and len(whole) > 1 and shape in (whole[:-1], (*whole[:-1], 1))
        if shape != whole and not per_sequence:
            raise _unfit(shapes)
    if len(whole) < 2:
        if options.level == "sequence" or not whole:
            raise NanhuntError(
                f"--op ppo: log_probs of shape {whole} have no axis of sequences and tokens.",
                "--level sequence needs (sequences, tokens).",
            )
        return Plan(whole, (), {name: Sliced(whole, 0) for name in shapes})
    sliced = {
        name: Sliced(shape if len(shape) == len(whole) else (*shape, 1), 1) for name, shape in shapes.items()
    }
    return Plan(whole[:-1], whole[-1:] if options.level == "token" else (), sliced)


def _unfit(shapes: Mapping[str, tuple[int, ...]]) -> NanhuntError:
    told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    return NanhuntError(
        f"--op ppo: these shapes do not fit: {told}.",
        "log_probs, old_log_probs, ref_log_probs and mask (B, T), advantages (B, T), (B, 1) or (B,).",
    )


def count(problem: Any) -> float:
    """What a mean divides by: the tokens that count, or sequences where they are averaged first."""
    import numpy as np

    options: PpoOptions = problem.options
    mask = problem.tensors.get("mask")
    ones = None if mask is None else int(np.count_nonzero(mask.data))
    if options.level == "sequence" or (options.aggregation != "token-mean" and len(problem.main.shape) > 1):
        return float(math.prod(problem.plan.groups))
    every = math.prod(problem.main.shape)
    return float(every if ones is None else every - ones if options.mask_drops else ones)


def _check_mask(mask: Tensor) -> None:
    """Whole numbers are looked at by whoever makes the problem."""
    from nanhunt.dtypes.convert import to_floats

    if mask.dtype not in FLOATING or not math.prod(mask.shape):
        return
    values = to_floats(mask.data, mask.dtype)
    low, high = float(values.min()), float(values.max())
    if {low, high} - {0.0, 1.0}:
        raise NanhuntError(
            f"{mask.label} is no mask: it holds values from {low:g} to {high:g}.",
            "A mask holds 1 (or True) for tokens that count, and 0; name another one with --role mask=NAME.",
        )


def settled(tensors: Mapping[str, Tensor], options: Any) -> Any:
    """TRL's padding_mask is True where a response is padded; every other mask where a token counts.

    Raises NanhuntError for a mask of floats that holds anything but 0 and 1.
    """
    if "mask" in tensors:
        _check_mask(tensors["mask"])
    if options.mask_drops is not None or "mask" not in tensors:
        return options
    return replace(options, mask_drops=is_called(PADDING, tensors["mask"].name))


def assumes(problem: Any) -> str:
    """How the mask was read."""
    if "mask" not in problem.tensors:
        return ""
    if problem.options.mask_drops:
        return "mask: 1 (True) leaves a token out; --no-mask-drops reads it the other way"
    return "mask: 1 (True) keeps a token; --mask-drops reads it the other way"


def isolate(t: Tensors, options: PpoOptions, unit: int) -> tuple[Tensors, PpoOptions]:
    """One token of a sequence; a sequence as it is, and a token that is a group of its own."""
    if options.level == "sequence" or t["log_probs"].dim() < 2:
        return t, options
    alone = {name: each[:, unit : unit + 1] if each.shape[-1] > 1 else each for name, each in t.items()}
    return alone, options


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, impossible, dropped: each bool (units,), "dropped" for bad numbers under the mask."""
    import torch

    stored, cast, options = block.stored, block.cast, block.options
    count = forms.kept(cast, options)
    found = {
        "not_finite": _not_finite(stored) & count,
        "cast_overflow": _cast_overflow(stored, cast) & count,
        "impossible": (stored["old_log_probs"] == -math.inf) & count,
        "dropped": _explodes(cast, options) & ~count if "mask" in cast else torch.zeros_like(count),
    }
    if "ref_log_probs" in stored and options.kl != "none":
        found["impossible"] |= (stored["ref_log_probs"] == -math.inf) & count
    if options.level == "sequence":
        found = {name: each.any(-1) for name, each in found.items()}
    return {name: each.reshape(-1).numpy() for name, each in found.items()}


def _not_finite(t: Tensors) -> torch.Tensor:
    """NaN anywhere, +inf as a log-probability, any infinity as an advantage."""
    bad = ~t["advantages"].isfinite()
    for name in LOG_PROBS:
        if name in t:
            bad = bad | ~(t[name] < math.inf)  # nor is NaN
    return bad


def _cast_overflow(stored: Tensors, cast: Tensors) -> torch.Tensor:
    import torch

    bad = torch.zeros_like(cast["log_probs"], dtype=torch.bool)
    for name in FLOATS:
        if name in stored and cast[name] is not stored[name]:
            bad = bad | (stored[name].isfinite() & ~cast[name].isfinite())
    return bad


def _explodes(t: Tensors, options: PpoOptions) -> torch.Tensor:
    """Numbers that a product with 0 turns into NaN: what is multiplied by the mask, or its gradient, is not finite."""
    d, k = forms.log_ratio(t), forms.reference_ratio(t)
    bad = ~(d.exp() if options.level == "token" else d).isfinite() | ~t["advantages"].isfinite()
    if k is not None and options.kl != "none":
        bad = bad | ~forms.penalty(k, options).isfinite()
    return bad


def screen(stored: Mapping[str, npt.NDArray[Any]], options: PpoOptions) -> bool:
    """Whether every log-ratio lies within +-19, or +-4 beside a ref - new within +-2 and a beta of at most 1.

    Tokens only, advantages up to 1e6 in size. The ratio is then a normal number and off by 12 u of itself (4 u), and
    the clamps at +-20 change nothing. exp(k) - k - 1 is off by less than 25 u, of a number below 5.4, which is less
    than 64 u of the sum of both, and of 1.
    """
    import numpy as np

    if options.level != "token":
        return False
    new, limit = stored["log_probs"], 19.0
    if "ref_log_probs" in stored and options.kl != "none":
        if options.beta > 1 or not _within(stored["ref_log_probs"] - new, 2.0):
            return False
        limit = 4.0
    advantages = stored["advantages"]
    return _within(new - stored["old_log_probs"], limit) and bool(np.abs(advantages).max(initial=0.0) <= 1e6)


def _within(values: npt.NDArray[Any], limit: float) -> bool:
    """Of NaN nothing is true."""
    return bool(values.size and values.min() >= -limit and values.max() <= limit)
