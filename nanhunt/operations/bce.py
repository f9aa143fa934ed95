"""Binary cross entropy: one probability a value, with 1 - sigmoid(x) as the number that is lost first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING, INTEGER
from nanhunt.operations.fix import Fix
from nanhunt.operations.operation import Block, Facts, Operation, Plan, Sliced, Unit
from nanhunt.operations.options import LossOptions
from nanhunt.operations.rule import Rule
from nanhunt.results.report import Severity

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from nanhunt.operations.operation import Bools, Tensors


@dataclass(frozen=True, kw_only=True)
class BceOptions(LossOptions):
    """Binary cross entropy."""


def plan(shapes: Mapping[str, tuple[int, ...]], options: BceOptions) -> Plan:
    """Every logit is a unit of its own. Raises NanhuntError unless logits and targets have the same shape."""
    logits, targets = shapes["logits"], shapes["targets"]
    if logits != targets:
        raise NanhuntError(
            f"--op bce: logits of shape {logits} and targets of shape {targets} do not fit.",
            "Both hold one number a label: F.binary_cross_entropy_with_logits refuses other shapes as well.",
        )
    return Plan(logits, (), {"logits": Sliced(logits, 0), "targets": Sliced(logits, 0)})


def naive(t: Tensors, options: BceOptions) -> torch.Tensor:
    """s = sigmoid(x); -(y log s + (1 - y) log(1 - s))."""
    import torch

    x, y = t["logits"], t["targets"]
    s = torch.sigmoid(x)
    return -(y * torch.log(s) + (1 - y) * torch.log(1 - s))


def bce_of_sigmoid(t: Tensors, options: BceOptions) -> torch.Tensor:
    """F.binary_cross_entropy(sigmoid(x), y), whose logarithms are clamped at -100."""
    import torch
    import torch.nn.functional as F

    x, y = t["logits"], t["targets"]
    valid = (
        (y >= 0) & (y <= 1) & ~x.isnan()
    )  # for a single other one PyTorch raises, and there is no loss at all
    losses = F.binary_cross_entropy(torch.sigmoid(x.where(valid, 0.0)), y.where(valid, 0.0), reduction="none")
    return losses.where(valid, math.nan)


def logsigmoid(t: Tensors, options: BceOptions) -> torch.Tensor:
    """F.logsigmoid for both logarithms: log s = logsigmoid of x, log of 1 - s = logsigmoid of -x."""
    import torch.nn.functional as F

    x, y = t["logits"], t["targets"]
    return -(y * F.logsigmoid(x) + (1 - y) * F.logsigmoid(-x))


def fused(t: Tensors, options: BceOptions) -> torch.Tensor:
    """F.binary_cross_entropy_with_logits(x, y)."""
    import torch.nn.functional as F

    return F.binary_cross_entropy_with_logits(t["logits"], t["targets"], reduction="none")


def truth(t: Tensors, options: BceOptions) -> torch.Tensor:
    """y softplus(-x) + (1 - y) softplus(x): two terms that are never negative, so nothing cancels."""
    import torch

    x, y = t["logits"], t["targets"]
    rest = torch.log1p(torch.exp(-x.abs()))
    positive = torch.where(y == 0, 0.0, y * ((-x).clamp_min(0.0) + rest))  # 0 * inf is 0 in truth
    return positive + torch.where(y == 1, 0.0, (1 - y) * (x.clamp_min(0.0) + rest))


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, bad_target, saturated: each bool (units,)."""
    import torch

    stored, x, y = block.stored["logits"], block.cast["logits"], block.cast["targets"]
    s = torch.sigmoid(x)
    found = {
        "not_finite": ~stored.isfinite(),
        "cast_overflow": stored.isfinite() & ~x.isfinite(),
        "bad_target": ~((y >= 0) & (y <= 1)),
        "saturated": (s == 0) | (1 - s == 0),
    }
    return {name: each.reshape(-1).numpy() for name, each in found.items()}


def screen(stored: Mapping[str, npt.NDArray[Any]], options: BceOptions) -> bool:
    """Whether every |x| is at most 5 and every target 0 or 1.

    1 - sigmoid(x) is then at least e^-5.01, off by less than 1.5 u of 1, so log(1 - s) is off by 1.5 u e^5.01 = 225 u,
    which is less than 64 u max(1, loss) = 320 u at |x| = 5 and stays so below: the loss of the wrong label is |x|.
    """
    x, y = stored["logits"], stored["targets"]
    return bool(x.size and x.min() >= -5 and x.max() <= 5 and ((y == 0) | (y == 1)).all())


def slots(problem: Any) -> Mapping[str, str]:
    """What the templates below hold for the user's options."""
    summed = problem.reduction == "sum"
    return {
        "logits": "logits{cast}",
        "targets": "targets{cast}",
        "options": ', reduction="sum"' if summed else "",
        "reduction": problem.reduction,
    }


_CALL = "F.binary_cross_entropy_with_logits({logits}, {targets}{options})"
_WITH_LOGITS: Fix[Any] = Fix("call F.binary_cross_entropy_with_logits on the raw logits", f"loss = {_CALL}")
_FLOAT32: Fix[Any] = Fix(
    "compute the loss in float32", f"loss = {_CALL}", slots={"cast": ".float()"}, when=lambda p: p.narrow
)
_EPS: Fix[Any] = Fix(
    "log(s + 1e-8)",
    "s = torch.sigmoid({logits})\n"
    "loss = -({targets} * torch.log(s + 1e-8) + (1 - {targets}) * torch.log(1 - s + 1e-8)).{reduction}()",
    tempting=True,
)
_BCE_LOSS: Fix[Any] = Fix(
    "F.binary_cross_entropy on sigmoid(logits)",
    "loss = F.binary_cross_entropy(torch.sigmoid({logits}), {targets}{options})", tempting=True,
)  # fmt: skip
_NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on the loss",
    "s = torch.sigmoid({logits})\n"
    "losses = -({targets} * torch.log(s) + (1 - {targets}) * torch.log(1 - s))\n"
    "loss = torch.nan_to_num(losses, nan=0.0, posinf=0.0).{reduction}()",
    tempting=True,
)
_WAYS_OUT = (_WITH_LOGITS, _BCE_LOSS, _EPS, _NAN_TO_NUM)


def _logit(unit: Unit) -> str:
    return f"logit {unit.number('logits')}, target {unit.number('targets')}"


def _naive_arithmetic(unit: Unit) -> str:
    return f"{_logit(unit)}: {unit.first_bad('naive')}; the true loss is {unit.value('truth'):.6g}"


def _fused_arithmetic(unit: Unit) -> str:
    return f"{_logit(unit)}: {unit.first_bad('fused') or 'the loss is ' + format(unit.value('fused'), '.6g')}"


def _overflow(unit: Unit) -> str:
    return f"logit {unit.number('logits', stored=True)} becomes {unit.number('logits')} in {unit.dtype}"


def _clamped(unit: Unit) -> str:
    given, true = unit.value("bce-of-sigmoid"), unit.value("truth")
    return f"{_logit(unit)}: F.binary_cross_entropy gives {given:.6g}, the truth is {true:.6g}"


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
        fixes=(_FLOAT32,),
    ),
    Rule(
        "NH705", "saturated-sigmoid", _W,
        "The handwritten loss is infinite or NaN.",
        "sigmoid(x) rounds to 1 (or to 0), so log(1 - s) is -inf, and 0 * -inf is NaN where the label is right.",
        "Call F.binary_cross_entropy_with_logits on the raw logits: it never forms the probability.",
        operation="bce", holds=lambda f: f.naive.bad_value & ~_input(f), arithmetic=_naive_arithmetic, fixes=_WAYS_OUT,
    ),
    Rule(
        "NH706", "bce-reciprocal-overflow", _W,
        "The handwritten loss is finite, its gradient is not.",
        "The backward pass of log s multiplies by 1/s, which overflows while s itself is still above 0.",
        "Call F.binary_cross_entropy_with_logits on the raw logits: its gradient is s - y, no reciprocal.",
        operation="bce", holds=lambda f: f.naive.bad_gradient & ~f.naive.bad_value & ~_input(f),
        arithmetic=_naive_arithmetic,
        fixes=_WAYS_OUT,
    ),
    Rule(
        "NH707", "clamped-bce", _N,
        "F.binary_cross_entropy(sigmoid(x)) is finite, and wrong or without a gradient.",
        "It clamps its logarithms at -100: the loss stops there, and the gradient is exactly 0.",
        "Call F.binary_cross_entropy_with_logits on the raw logits.",
        operation="bce",
        holds=lambda f: f.by["bce-of-sigmoid"].wrong | f.by["bce-of-sigmoid"].silent,
        arithmetic=_clamped, fixes=(_WITH_LOGITS, _BCE_LOSS),
    ),
    Rule(
        "NH708", "bce-cancellation", _N,
        "The handwritten loss is finite, and off by more than its rounding.",
        "1 - s loses the digits of s near 1.",
        "Call F.binary_cross_entropy_with_logits on the raw logits.",
        operation="bce", holds=lambda f: f.naive.wrong,
        arithmetic=lambda u: f"{_logit(u)}: the loss is {u.value('naive'):.6g}, the truth {u.value('truth'):.6g}",
        fixes=(_WITH_LOGITS,),
    ),
    Rule(
        "NH709", "bce-vanished-gradient", _N,
        "The gradient of F.binary_cross_entropy_with_logits is exactly 0, the truth is not.",
        "s - y rounds to 0 in the dtype, or does after the mean divides it by N: the value no longer trains.",
        "Compute the loss in float32, or scale it up before backward (GradScaler).",
        operation="bce", holds=lambda f: f.fused.silent,
        arithmetic=lambda u: f"{_logit(u)}: the loss is {u.value('fused'):.6g}, the truth {u.value('truth'):.6g}",
        fixes=(_FLOAT32,),
    ),
)  # fmt: skip

BCE = Operation(
    name="bce",
    what="Binary cross entropy: -(y log sigmoid(x) + (1 - y) log(1 - sigmoid(x))), value by value.",
    unit="value",
    fused_call="F.binary_cross_entropy_with_logits",
    roles=(
        Role(
            "logits", r".*logits?|(.*[_-])?scores?", FLOATING,
            what="any shape, float: scores before the sigmoid", gradient="unit",
        ),
        Role(
            "targets", r"(.*[_-])?(targets?|labels?)([_-]probs?)?|y|y_true", FLOATING + INTEGER,
            what="the logits' shape: 0, 1 or a probability",
        ),
    ),
    options=BceOptions,
    plan=plan,
    forms={"naive": naive, "bce-of-sigmoid": bce_of_sigmoid, "logsigmoid": logsigmoid, "fused": fused},
    truth=truth,
    facts=facts,
    rules=RULES,
    slots=slots,
    screen=screen,
    reduces=True,
    shapes={"logits": (32, 10), "targets": (32, 10)},
)  # fmt: skip
