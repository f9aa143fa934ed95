"""Numbers that are finite and still ruin the next step: moments, scales and variances whose sign or size is wrong.

What is told is worked out from the file: for Adam the next update of a weight is exp_avg / (sqrt(exp_avg_sq) + eps),
before the learning rate (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; its bias correction makes it no smaller). A
fresh model, a fresh optimizer, a fresh LoRA, tied and pruned weights have none of these but for notes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.convert import to_floats
from nanhunt.dtypes.formats import FORMATS
from nanhunt.load.roles import place
from nanhunt.load.tensor import Tensor
from nanhunt.operations.rule import Rule
from nanhunt.operations.values import rules
from nanhunt.operations.values.health import Counts
from nanhunt.results.finding import Finding

EPS = 1e-8
"""Of Adam and AdamW in PyTorch and optax, where the checkpoint does not say."""
LARGE_UPDATE = 10.0
"""Adam's update is at most about (1 - beta1) / sqrt(1 - beta2) = 3.2 learning rates."""
CHUNK = 1 << 20
"""Values of two tensors that are compared at a time."""
_SECOND = r"(max_)?exp_avg_sq|square_avg|exp_inf|nu"
_SQUARES = rf"{_SECOND}|exp_avg_sq_(row|col)"
"""Averages of squares, those of transformers' Adafactor among them (torch's own clamps before the root)."""
_SCALES = r"(weight|input|output|act|activation|block|[qkv])_scales?(_inv)?|scales(_inv)?|scale_inv|absmax"
_NORM_WEIGHT = r"(.*[._/])?[a-z_]*(norm|ln|bn)[a-z_]*[0-9]*([._/][0-9]+)?[._/](weight|gamma)"
_ADAPTER = r"(.*[._/])?lora_b([._/].*)?"

Bools = npt.NDArray[np.bool_]


def findings(tensor: Tensor, beside: Mapping[str, Tensor], counts: Counts) -> Iterator[Finding]:
    """What is wrong with a tensor in its place; ``beside``: all tensors of the file by name."""
    word, size = place(tensor.name).word, math.prod(tensor.shape)
    if re.fullmatch(_SQUARES, word) and counts.min < 0:
        yield _negative(
            rules.NEGATIVE_MOMENT, tensor, "sqrt of it is NaN, as is the weight after the next step"
        )
    if re.fullmatch(_SECOND, word) and counts.zero:
        yield from _flushed(tensor, _first_moment(tensor, word, beside))
    if word == "step" and size == 1 and counts.zero:
        yield from _forgotten_step(tensor, beside)
    if word == "running_var" and counts.min < 0:
        yield _negative(rules.NEGATIVE_VARIANCE, tensor, "sqrt(var + eps) is NaN below -eps")
    elif word == "running_var" and counts.zero:
        yield _finding(
            rules.ZERO_VARIANCE,
            tensor,
            lambda x: x == 0,
            "are 0: their channels are divided by sqrt(eps) alone",
        )
    if len(tensor.shape) == 1 and counts.min <= 0 and re.fullmatch(_NORM_WEIGHT, tensor.name.lower()):
        yield from _switched_off(tensor)
    scales = tensor.scales or ("positive" if re.fullmatch(_SCALES, word) else "")
    if scales == "positive" and counts.min < 0:
        yield _negative(rules.BAD_SCALE, tensor, "what it scales changes its sign")
    elif scales and counts.zero:
        yield _finding(
            rules.BAD_SCALE, tensor, lambda x: x == 0, "are 0: what they scale becomes 0, or infinite"
        )
    if size and counts.zero == size and re.fullmatch(_ADAPTER, tensor.name.lower()):
        rule = rules.DEAD_ADAPTER
        yield Finding(rule.code, rule.name, rule.severity, size, (), f"all {size:,} values are 0")


def _first_moment(tensor: Tensor, word: str, beside: Mapping[str, Tensor]) -> Tensor | None:
    """exp_avg of exp_avg_sq, mu of nu: of the same weight."""
    first = {"exp_avg_sq": "exp_avg", "nu": "mu", "square_avg": "grad_avg"}.get(word)
    if first is None:
        return None
    at = tensor.name.lower().rfind(word)
    found = beside.get(tensor.name[:at] + first + tensor.name[at + len(word) :])
    return found if found is not None and found.shape == tensor.shape else None


def _flushed(second: Tensor, first: Tensor | None) -> Iterator[Finding]:
    """Second moments of 0: an update of exp_avg / eps where exp_avg is not 0, 0 / 0 where eps is 0 in the dtype too."""
    eps = EPS if second.eps is None else second.eps
    no_eps = FORMATS[second.dtype].smallest_subnormal / 2 >= eps
    moments = _Moments() if first is None else _moments(first, second, eps)
    update = moments.largest / eps if eps else math.inf
    if moments.large:
        rule = rules.FLUSHED_MOMENT
        message = (
            f"{moments.large:,} of {math.prod(second.shape):,} values are 0 where exp_avg is not: the next update is "
            f"{moments.largest:.3g} / (0 + eps {eps:g}) = {update:.3g} learning rates, at "
            f"flat position {moments.at:,}"
        )
        yield Finding(rule.code, rule.name, rule.severity, moments.large, (moments.at,), message)
    if no_eps:
        yield _finding(
            rules.NO_EPS, second, lambda x: x == 0,
            f"are 0, and eps {eps:g} is 0 in {second.dtype}: a step computed in it divides by 0",
        )  # fmt: skip


class _Moments:
    """What is known of first moments whose second moment is 0."""

    def __init__(self) -> None:
        self.large = 0
        self.largest = 0.0
        self.at = 0


def _moments(first: Tensor, second: Tensor, eps: float) -> _Moments:
    found, size = _Moments(), math.prod(first.shape)
    for start in range(0, size, CHUNK):
        stop = min(start + CHUNK, size)
        values = np.abs(to_floats(first.flat(start, stop), first.dtype)).astype(np.float64)
        values = np.where(to_floats(second.flat(start, stop), second.dtype) == 0, np.nan_to_num(values), 0.0)
        found.large += int(np.count_nonzero(values > eps * LARGE_UPDATE))
        if values.size and values.max() > found.largest:
            found.largest, found.at = float(values.max()), start + int(values.argmax())
    return found


def _forgotten_step(step: Tensor, beside: Mapping[str, Tensor]) -> Iterator[Finding]:
    """A step of 0 beside moments that have been updated: bias correction starts again."""
    around = step.name.removesuffix("step")
    first = beside.get(f"{around}exp_avg")
    if first is None or not math.prod(first.shape):
        return
    largest = float(np.abs(to_floats(first.flat(0, min(CHUNK, math.prod(first.shape))), first.dtype)).max())
    if largest > 0:
        rule = rules.FORGOTTEN_STEP
        message = (
            f"step is 0, exp_avg beside it reaches {largest:.3g}: bias correction starts again, and makes the next "
            "update sqrt(1 - beta2) / (1 - beta1) = 0.32 times the right one"
        )
        yield Finding(rule.code, rule.name, rule.severity, 1, (0,), message)


def _switched_off(weight: Tensor) -> Iterator[Finding]:
    """A few scales that are 0 or negative: most of them are where a norm is fresh, or multiplies by 1 + weight."""
    said = "are 0 or negative: such a channel is switched off, or changes its sign"
    found = _finding(rules.NORM_WEIGHT, weight, lambda x: x <= 0, said)
    if found.count < math.prod(weight.shape) / 2:
        yield found


def _negative(rule: Rule[object, object, object], tensor: Tensor, why: str) -> Finding:
    return _finding(rule, tensor, lambda x: x < 0, f"are negative: {why}")


def _finding(
    rule: Rule[object, object, object],
    tensor: Tensor,
    holds: Callable[[npt.NDArray[np.floating]], Bools],
    what: str,
) -> Finding:
    """How many values it holds for, where the first ones are, and what they are."""
    count, first, value, size = 0, list[int](), math.nan, math.prod(tensor.shape)
    for start in range(0, size, CHUNK):
        values = to_floats(tensor.flat(start, min(start + CHUNK, size)), tensor.dtype)
        hit = np.flatnonzero(holds(values))
        if len(hit) and not first:
            value = float(values[hit[0]])
        count += len(hit)
        first += [start + int(at) for at in hit[: 10 - len(first)]]
    named = f" (the first is {value:.6g})" if value else ""
    return Finding(
        rule.code,
        rule.name,
        rule.severity,
        count,
        tuple(first),
        f"{count:,} of {size:,} values {what}{named}",
    )
