"""Ways out of an exploding ratio, and what only looks like one; each is run before it is printed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nanhunt.operations.fix import Fix
from nanhunt.operations.ppo.options import PpoOptions

_NEW, _OLD, _REF = "log_probs{cast}", "old_log_probs{cast}", "ref_log_probs{cast}"


def slots(problem: Any) -> Mapping[str, str]:
    """What the templates below hold for the user's tensors and options."""
    options: PpoOptions = problem.options
    dimensions = len(problem.main.shape)
    mask = _mask(problem)
    per_sequence = dimensions > len(problem.tensors["advantages"].shape)
    return {
        "ratio": f"{_NEW} - {_OLD}",
        "masked": f"torch.where({mask}, {_NEW} - {_OLD}, 0.0)" if mask else f"{_NEW} - {_OLD}",
        "mean": _mean(mask) if options.level == "sequence" else "",
        "advantages": "advantages{cast}" + ("[..., None]" if per_sequence else ""),
        "bound": _exponent(math.log1p(options.clip_high)),
        "rest": f"d.clamp(max={_exponent(math.log(options.clip_dual))})" if options.clip_dual else "d",
        "dual": f"losses = torch.where(A < 0, torch.min(losses, -{options.clip_dual!r} * A), losses)\n"
        if options.clip_dual
        else "",
        "low": f"{1 - options.clip_low:.6g}",
        "high": f"{1 + options.clip_high:.6g}",
        "penalty": _penalty(problem, mask),
        "clamped_penalty": _penalty(problem, mask, ".clamp(-20, 20)"),
        "poisoned_penalty": _penalty(problem, ""),
        "loss": _loss(options, mask, dimensions),
    }


def _exponent(limit: float) -> str:
    """In six decimals, never below: exp of it is clipped."""
    return repr(math.ceil(limit * 1e6) / 1e6)


def _mask(problem: Any) -> str:
    """An expression that is True where a token counts; "" without a mask."""
    mask = problem.tensors.get("mask")
    if mask is None:
        return ""
    text = "mask" if mask.dtype == "bool" else "mask.bool()"
    return f"~{text}" if problem.options.mask_drops else text


def _times(mask: str) -> str:
    return f" * ({mask})" if mask.startswith("~") else f" * {mask}"


def _number(mask: str) -> str:
    return f"({mask}).sum(" if mask.startswith("~") else f"{mask}.sum("


def _mean(mask: str) -> str:
    if not mask:
        return "d = d.mean(-1, keepdim=True)\n"
    return f"d = (d{_times(mask)}).sum(-1, keepdim=True) / {_number(mask)}-1, keepdim=True).clamp(min=1)\n"


def _penalty(problem: Any, mask: str, clamp: str = "") -> str:
    options: PpoOptions = problem.options
    if options.kl == "none" or "ref_log_probs" not in problem.tensors:
        return ""
    k = f"torch.where({mask}, {_REF} - {_NEW}, 0.0)" if mask else f"({_REF} - {_NEW})"
    estimate = {"k1": "-k", "k2": "0.5 * k.square()", "k3": "(k.exp() - k - 1)"}[options.kl]
    return f"k = {k}{clamp}\nlosses = losses + {options.beta!r} * {estimate}\n"


def _loss(options: PpoOptions, mask: str, dimensions: int) -> str:
    """The line that makes one number of the losses of tokens."""
    end = "sum()" if options.reduction == "sum" else "mean()"
    kept = f"(losses{_times(mask)})" if mask else "losses"
    averages = options.level == "sequence" or options.aggregation == "seq-mean-token-mean"
    if dimensions > 1 and averages:
        per_token = f"{kept}.sum(-1) / {_number(mask)}-1).clamp(min=1)" if mask else "losses.mean(-1)"
        return f"loss = ({per_token}).{end}"
    if dimensions > 1 and options.aggregation == "seq-mean-token-sum-norm":
        return f"loss = ({kept}.sum(-1) / losses.shape[-1]).{end}"
    if dimensions > 1 and options.aggregation == "seq-mean-token-sum":
        return f"loss = {kept}.sum(-1).{end}"
    if options.reduction == "sum" or not mask:
        return f"loss = {kept}.{end}"
    return f"loss = {kept}.sum() / {_number(mask)}).clamp(min=1)"


_SURROGATE = "losses = -torch.min(ratio * A, ratio.clamp({low}, {high}) * A)\n{dual}"
_END = _SURROGATE + "{penalty}{loss}"
_POISONED_LOSSES = (
    "d = {ratio}\n{mean}A = {advantages}\nratio = d.exp()\n" + _SURROGATE + "{poisoned_penalty}"
)
_POISONED = _POISONED_LOSSES + "{loss}"
_BOUND = (
    "d = {masked}\n{mean}A = {advantages}\n"
    "ratio = torch.where(A >= 0, d.clamp(max={bound}), {rest}).exp()  # what is clipped anyway, before exp\n"
    + _END
)


def _has_mask(problem: Any) -> bool:
    return "mask" in problem.tensors


MASK_FIRST: Fix[Any] = Fix(
    "mask the log-ratio before exp",
    "d = {masked}\n{mean}A = {advantages}\nratio = d.exp()\n" + _END,
    when=_has_mask,
)
BOUND: Fix[Any] = Fix("bound the log-ratio where the clip makes it irrelevant, before exp", _BOUND)
FLOAT32: Fix[Any] = Fix(
    "compute the ratio in float32", _BOUND, slots={"cast": ".float()"}, when=lambda problem: problem.narrow
)
_CLAMPED = (
    "d = {masked}\n{mean}d = d.clamp(-20, 20)\nA = {advantages}\nratio = d.exp()\n"
    + _SURROGATE
    + "{clamped_penalty}{loss}"
)
STOPS = "beyond 20 the ratio is exp(20) and the gradient 0"
CLAMP: Fix[Any] = Fix(
    "clamp the log-ratio at +-20", _CLAMPED, when=lambda problem: not problem.narrow, changes=STOPS
)
CLAMP_FLOAT32: Fix[Any] = Fix(
    "clamp the log-ratio at +-20, in float32", _CLAMPED, slots={"cast": ".float()"},
    when=lambda problem: problem.narrow, changes=STOPS,
)  # fmt: skip
CLAMPS = (CLAMP, CLAMP_FLOAT32)
CLAMP_RATIO: Fix[Any] = Fix(
    "clamping the ratio after exp",
    "d = {ratio}\n{mean}A = {advantages}\nratio = d.exp().clamp(max=10.0)\n"
    + _SURROGATE
    + "{poisoned_penalty}{loss}",
    changes="a ratio above 10 counts as 10",
    tempting=True,
)
CLIP_GRADIENTS: Fix[Any] = Fix(
    "gradient clipping",
    _POISONED + "\nloss.backward()\ntorch.nn.utils.clip_grad_norm_(log_probs, 1.0)",
    tempting=True,
)
NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on the losses",
    _POISONED_LOSSES + "losses = torch.nan_to_num(losses, nan=0.0, posinf=0.0, neginf=0.0)\n{loss}",
    tempting=True,
)
TEMPTING = (CLAMP_RATIO, CLIP_GRADIENTS, NAN_TO_NUM)
