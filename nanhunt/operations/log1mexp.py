"""log(1 - exp(x)) of log-probabilities: the log of "not this", as in ORPO's odds ratio, value by value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING
from nanhunt.operations.fix import Fix
from nanhunt.operations.operation import Block, Facts, Operation, Plan, Sliced, Unit
from nanhunt.operations.rule import Rule
from nanhunt.operations.usual import (
    at_fault,
    fails,
    in_float32,
    input_facts,
    input_rules,
    numpy_of,
    says,
    slots_of,
    wrong_rules,
)
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Bools, Tensors

HALF = -math.log(2.0)
"""Where exp(x) is 1/2: above it expm1 keeps the digits, below it log1p (Maechler, "Accurately computing
log(1 - exp(-|a|))", 2012, R package Rmpfr)."""


@dataclass(frozen=True, kw_only=True)
class Log1mexpOptions:
    """The logarithm of 1 - exp."""


def plan(shapes: Mapping[str, tuple[int, ...]], options: Log1mexpOptions) -> Plan:
    """Every log-probability is a unit of its own, in any shape."""
    return Plan(shapes["log_probs"], (), {"log_probs": Sliced(shapes["log_probs"], 0)})


def naive(t: Tensors, options: Log1mexpOptions) -> torch.Tensor:
    """torch.log(1 - x.exp())."""
    import torch

    return torch.log(1 - t["log_probs"].exp())


def with_log1p(t: Tensors, options: Log1mexpOptions) -> torch.Tensor:
    """torch.log1p(-x.exp()), as TRL's ORPO writes it."""
    import torch

    return torch.log1p(-t["log_probs"].exp())


def with_expm1(t: Tensors, options: Log1mexpOptions) -> torch.Tensor:
    """torch.log(-torch.expm1(x))."""
    import torch

    return torch.log(-torch.expm1(t["log_probs"]))


def both_halves(t: Tensors, options: Log1mexpOptions) -> torch.Tensor:
    """torch.where(x > -log 2, log(-expm1(x)), log1p(-exp(x))): the half that is left out still has its gradient."""
    import torch

    return torch.where(t["log_probs"] > HALF, with_expm1(t, options), with_log1p(t, options))


def fused(t: Tensors, options: Log1mexpOptions) -> torch.Tensor:
    """Both halves, each on an input that is replaced where the other one counts."""
    import torch

    x = t["log_probs"]
    near = x > HALF
    above = torch.log(-torch.expm1(torch.where(near, x, -1.0)))
    below = torch.log1p(-torch.where(near, -1.0, x).exp())
    return torch.where(near, above, below)


def truth(t: Tensors, options: Log1mexpOptions) -> torch.Tensor:
    """float64, both halves on replaced input."""
    return fused(t, options)


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, certain, positive: each bool (units,)."""
    x = block.cast["log_probs"]
    found = input_facts(block, ["log_probs"], masks=["log_probs"])
    return numpy_of({**found, "certain": x == 0, "positive": x > 0})


def _input(f: Facts) -> Bools:
    return at_fault(f) | f.own["certain"] | f.own["positive"]


def _x(unit: Unit) -> str:
    return f"log-probability {unit.number('log_probs')}"


def _certain(unit: Unit) -> str:
    stored, cast = unit.number("log_probs", stored=True), unit.number("log_probs")
    told = f"log-probability {stored}" + (f" becomes {cast} in {unit.dtype}" if stored != cast else "")
    return f"{told}: exp is 1, and log(1 - 1) = -inf"


_BOTH = (
    "near = log_probs > -0.6931\n"
    "above = torch.log(-torch.expm1(torch.where(near, {log_probs}, -1.0)))\n"
    "below = torch.log1p(-torch.where(near, -1.0, {log_probs}).exp())\n"
    "output = torch.where(near, above, below)"
)
_SAFE: Fix[Any] = Fix("both halves, each on a replaced input", _BOTH)
_FLOAT32 = in_float32("logarithm", _BOTH)
_LOG1P: Fix[Any] = Fix("log1p(-exp(x))", "output = torch.log1p(-{log_probs}.exp())", tempting=True)
_EPS: Fix[Any] = Fix(
    "log(1 - exp(x) + 1e-8)", "output = torch.log(1 - {log_probs}.exp() + 1e-8)", tempting=True
)
_CLAMP: Fix[Any] = Fix(
    "clamp x at -1e-4", "output = torch.log1p(-{log_probs}.clamp(max=-1e-4).exp())",
    changes="every value from -1e-4 up counts as -1e-4", tempting=True,
)  # fmt: skip
_WHERE: Fix[Any] = Fix(
    "where around both halves",
    "above = torch.log(-torch.expm1({log_probs}))\nbelow = torch.log1p(-{log_probs}.exp())\n"
    "output = torch.where(log_probs > -0.6931, above, below)",
    tempting=True,
)
_WAYS_OUT = (_SAFE, _LOG1P, _WHERE, _EPS, _CLAMP)

_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
_CALL = "log1mexp in two halves"
RULES: tuple[Rule[Facts, Any, Any], ...] = (
    *input_rules("log1mexp", "NH89", masks=["log_probs"]),
    Rule(
        "NH893", "certain-event", _E,
        "The log-probability is 0: log(1 - exp(0)) is -inf in truth, and so is its gradient.",
        "A probability of 1 has no odds; in half precision every probability near 1 is rounded to that.",
        "Compute the log-probabilities in float32; clamp them below 0 if 1 is a legal probability.",
        operation="log1mexp", holds=lambda f: f.own["certain"] & ~at_fault(f), arithmetic=_certain,
        input_at_fault=True,
    ),
    Rule(
        "NH894", "log-probability-above-0", _E,
        "The log-probability is above 0.",
        "1 - exp(x) is negative, and its logarithm NaN: x is no logarithm of a probability.",
        "Find what made it: a length-normalised or summed score, or rounding in half precision.",
        operation="log1mexp", holds=lambda f: f.own["positive"] & ~at_fault(f), arithmetic=_x, input_at_fault=True,
    ),
    Rule(
        "NH895", "log1mexp-not-finite", _E,
        "log(1 - exp(x)) is not finite, or its gradient is not, however it is written.",
        "The gradient is about 1 / x, which is beyond the format (float16: from |x| = 1.5e-5 down).",
        "Compute the logarithm in float32.",
        operation="log1mexp", holds=lambda f: fails(f.fused) & ~_input(f), arithmetic=says("fused", _x),
        fixes=(_FLOAT32, _CLAMP),
    ),
    Rule(
        "NH896", "log1mexp-cancellation", _W,
        "log(1 - exp(x)) is -inf, and so is log1p(-exp(x)).",
        "exp(x) rounds to 1 for x near 0, and 1 - 1 is 0: what log1p would keep was lost before it.",
        "Take log(-expm1(x)) for x > -log 2 and log1p(-exp(x)) below, and replace x in the half that does not count.",
        operation="log1mexp", holds=lambda f: fails(f.naive) & ~fails(f.fused) & ~_input(f),
        arithmetic=says("naive", _x), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH897", "log1mexp-half-gradient", _W,
        "where around both halves has the right value and a gradient of NaN.",
        "The half that where leaves out is -inf here, and 0 * inf in its backward pass is NaN.",
        "Replace x in the half that does not count, before it is computed.",
        operation="log1mexp", holds=lambda f: fails(f.by["both-halves"]) & ~fails(f.fused) & ~_input(f),
        arithmetic=says("both-halves", _x), fixes=(_SAFE, _WHERE),
    ),
    *wrong_rules(
        "log1mexp", "NH898", "NH899", "1 - exp(x) has lost the digits of x near 0.",
        "Take log(-expm1(x)) for x > -log 2.", _x, _SAFE, _FLOAT32,
    ),
)  # fmt: skip

LOG1MEXP = Operation(
    name="log1mexp",
    what="log(1 - exp(x)) of log-probabilities, value by value.",
    unit="value",
    fused_call=_CALL,
    roles=(
        Role(
            "log_probs", r"(.*[_-])?(log[_-]?probs?|logps)", FLOATING,
            what="any shape, float, below 0; -inf is legal", gradient="unit",
        ),
    ),
    options=Log1mexpOptions,
    plan=plan,
    forms={
        "naive": naive, "with-log1p": with_log1p, "with-expm1": with_expm1, "both-halves": both_halves, "fused": fused,
    },
    truth=truth,
    facts=facts,
    rules=RULES,
    slots=slots_of("log_probs"),
    shapes={"log_probs": (32, 10)},
)  # fmt: skip
