"""What goes wrong with a sigmoid and its logarithm, and what mends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nanhunt.operations.bce import forms
from nanhunt.operations.bce.fixes import BCE_LOSS, FLOAT32, RIGHT, WAYS_OUT
from nanhunt.operations.operation import Block, Facts, Unit
from nanhunt.operations.rule import Rule
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from nanhunt.operations.bce.options import BceOptions
    from nanhunt.operations.operation import Behaviour, Bools, Tensors


ULP = 2.0**-23
"""The distance of float32 numbers from 1 on, relative to them: twice the unit roundoff u."""


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, bad_target: each bool (units,)."""
    import torch

    stored = _finite(block.stored)
    same = all(
        block.cast[name] is each for name, each in block.stored.items()
    )  # there is nothing to overflow
    y = forms.targets(block.cast, block.options)
    found = {
        "not_finite": ~stored,
        "cast_overflow": torch.zeros_like(stored) if same else stored & ~_finite(block.cast),
        "bad_target": ~((y >= 0) & (y <= 1)),
    }
    return {name: each.reshape(-1).numpy() for name, each in found.items()}


def _finite(t: Tensors) -> torch.Tensor:
    """Of each unit, whether its logit, or all that its margin is made of, is."""
    first, *rest = (t[name] for name in ("logits", *forms.PREFERENCE) if name in t)
    found = first.isfinite()
    for each in rest:
        found &= each.isfinite()
    return found


def screen(stored: Mapping[str, npt.NDArray[Any]], options: BceOptions) -> bool:
    """Whether every x lies in -27..15, every target is 0 or 1, the loss a plain one, and 1 - s has its digits.

    With the target 0 the loss is log(1 - s), above x. 1 - s is at least e^-5.31 and off by 1.5 u, so the loss is off by
    less than 1.5 u e^5.31 = 304 u, less than 64 u x = 339 u at x = 5.3 and so below; the few x above it are looked at
    one by one. With the target 1 it is log s, of an s that has all its digits for x < 0, and is above 1/2 and off by
    1.5 u else. s is below 1 until x = 16.6, and s (1 - s) above the 1e-12 by which F.binary_cross_entropy divides until
    x = -27.6, so no gradient is lost.
    """
    import numpy as np

    if "logits" not in stored or options.gamma or options.pos_weight != 1.0:
        return False
    x, y = stored["logits"], stored["targets"]
    if not x.size or not (x.min() >= -27 and x.max() <= 15 and ((y == 0) | (y == 1)).all()):
        return False
    return bool(x.max() <= 5.3) or _have_digits(x[(y == 0) & (x > np.float32(5.3))])


def _have_digits(x: npt.NDArray[Any]) -> bool:
    """Whether -log(1 - sigmoid(x)) of float32 x above 5 is right in float32: rounded step by step as PyTorch does it.

    sigmoid is 1 / (1 + exp(-x)), whose sum and quotient are rounded correctly. The exponential is good to 1 ulp (SLEEF,
    libm); for all within 4 of it the sum lies between two that are known, and so does the loss, which grows with s.
    4 u are left for the logarithm and the product with 1 - y.
    """
    import numpy as np

    if x.dtype != np.float32:
        return not x.size  # there is no wider format to know the exponential in
    exp, true, one = np.exp(-x.astype(np.float64)), np.logaddexp(0.0, x.astype(np.float64)), np.float32(1)
    for last in (1 - 4 * ULP, 1 + 4 * ULP):
        s = one / (one + (exp * last).astype(np.float32))
        loss = -np.log((one - s).astype(np.float64))
        if not (np.abs(loss - true) <= 60 * (ULP / 2) * true).all():
            return False
    return True


def _logit(unit: Unit) -> str:
    if "logits" in unit.cast:
        return f"logit {unit.number('logits')}, target {unit.number('targets')}"
    margin = float(forms.logits(unit.cast, unit.options).reshape(-1)[0])
    said = ", ".join(f"{name} {unit.number(name)}" for name in forms.PREFERENCE if name in unit.cast)
    return f"margin {margin:.6g} (beta {unit.options.beta:g}; {said})"


def _naive_arithmetic(unit: Unit) -> str:
    return f"{_logit(unit)}: {unit.first_bad('naive')}; the true loss is {unit.value('truth'):.6g}"


def _fused_arithmetic(unit: Unit) -> str:
    return f"{_logit(unit)}: {unit.first_bad('fused') or 'the loss is ' + format(unit.value('fused'), '.6g')}"


def _overflow(unit: Unit) -> str:
    for name, each in unit.cast.items():
        if bool((~each.isfinite()).any()):
            return f"{name} {unit.number(name, stored=True)} becomes {unit.number(name)} in {unit.dtype}"
    return ""


def _clamped(unit: Unit) -> str:
    given, true = unit.value("bce-of-sigmoid"), unit.value("truth")
    slope, true_slope = unit.gradient("bce-of-sigmoid"), unit.gradient("truth")
    return (
        f"{_logit(unit)}: F.binary_cross_entropy gives {given:.6g} with a gradient of {slope:.6g}, "
        f"the truth is {true:.6g} with {true_slope:.6g}"
    )


def _lost(behaviour: Behaviour) -> Bools:
    """Values whose loss is wrong, or whose gradient is not (nearly) what it should be."""
    return behaviour.wrong | behaviour.silent | behaviour.faint


def _input(f: Facts) -> Bools:
    """Values whose input is at fault, which has a finding of its own."""
    return f.own["not_finite"] | f.own["cast_overflow"] | f.own["bad_target"]


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
RULES: tuple[Rule[Facts, Unit, Any], ...] = (
    Rule(
        "NH701", "bce-input-not-finite", _E,
        "A logit is NaN or infinite.",
        "max(x, 0) - x y is inf - inf for x = inf, and NaN stays NaN.",
        "Find what produced it (nanhunt run names the operation); nothing after the logits can repair it.",
        operation="bce", holds=lambda f: f.own["not_finite"], arithmetic=_logit, input_at_fault=True,
    ),
    Rule(
        "NH702", "bce-cast-overflow", _E,
        "A logit that is finite in the file is infinite in the chosen dtype.",
        "The value is beyond the format's largest number, so the cast destroys it before any sigmoid runs.",
        "Keep the logits in float32 or bfloat16 for the loss.",
        operation="bce", holds=lambda f: f.own["cast_overflow"],
        arithmetic=_overflow,
        input_at_fault=True,
    ),
    Rule(
        "NH703", "bce-target-out-of-range", _W,
        "A target lies outside 0..1.",
        "F.binary_cross_entropy raises; with logits the loss is computed, and falls without bound.",
        "Give probabilities or 0 and 1; a padding value such as -1 or -100 must be left out before the loss.",
        operation="bce", holds=lambda f: f.own["bad_target"], arithmetic=_logit, input_at_fault=True,
    ),
    Rule(
        "NH704", "bce-not-finite", _E,
        "Even F.binary_cross_entropy_with_logits is not finite, or its gradient is not.",
        "The logits and targets of this value leave no finite loss in the dtype.",
        "Look at the numbers of the value; compute the loss in a wider dtype.",
        operation="bce", holds=lambda f: (f.fused.bad_value | f.fused.bad_gradient) & ~_input(f),
        arithmetic=_fused_arithmetic,
        fixes=FLOAT32,
    ),
    Rule(
        "NH705", "saturated-sigmoid", _W,
        "The handwritten loss is infinite or NaN.",
        "sigmoid(x) rounds to 1 (or to 0), so log(1 - s) is -inf, and 0 * -inf is NaN where the label is right.",
        "Call F.binary_cross_entropy_with_logits on the raw logits: it never forms the probability.",
        operation="bce", holds=lambda f: f.naive.bad_value & ~_input(f), arithmetic=_naive_arithmetic, fixes=WAYS_OUT,
    ),
    Rule(
        "NH706", "bce-reciprocal-overflow", _W,
        "The handwritten loss is finite, its gradient is not.",
        "The backward pass of log s multiplies by 1/s, which overflows while s itself is still above 0.",
        "Call F.binary_cross_entropy_with_logits on the raw logits: its gradient is s - y, no reciprocal.",
        operation="bce", holds=lambda f: f.naive.bad_gradient & ~f.naive.bad_value & ~_input(f),
        arithmetic=_naive_arithmetic,
        fixes=WAYS_OUT,
    ),
    Rule(
        "NH707", "clamped-bce", _N,
        "F.binary_cross_entropy(sigmoid(x)) is finite, and wrong or (nearly) without a gradient.",
        "It clamps its logarithms at -100, where the loss stops, and divides by at least 1e-12: below x = -27.6, and "
        "where sigmoid(x) rounds to 1, the gradient fades to 0.",
        "Call F.binary_cross_entropy_with_logits on the raw logits.",
        operation="bce",
        holds=lambda f: _lost(f.of("bce-of-sigmoid")) & ~_input(f),
        arithmetic=_clamped, fixes=(*RIGHT, BCE_LOSS),
    ),
    Rule(
        "NH708", "bce-cancellation", _N,
        "The handwritten loss is finite, and off by more than its rounding.",
        "1 - s loses the digits of s near 1; a margin of large log-probabilities is rounded before anything else.",
        "Call F.binary_cross_entropy_with_logits on the raw logits.",
        operation="bce", holds=lambda f: f.naive.wrong & ~_input(f),
        arithmetic=lambda u: f"{_logit(u)}: the loss is {u.value('naive'):.6g}, the truth {u.value('truth'):.6g}",
        fixes=(*RIGHT, *FLOAT32),
    ),
    Rule(
        "NH709", "bce-vanished-gradient", _N,
        "The gradient of F.binary_cross_entropy_with_logits is exactly 0, the truth is not.",
        "s - y rounds to 0 in the dtype, or does after the mean divides it by N: the value no longer trains.",
        "Compute the loss in float32, or scale it up before backward (GradScaler).",
        operation="bce", holds=lambda f: f.fused.silent,
        arithmetic=lambda u: f"{_logit(u)}: the loss is {u.value('fused'):.6g}, the truth {u.value('truth'):.6g}",
        fixes=FLOAT32,
    ),
)  # fmt: skip
