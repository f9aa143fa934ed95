"""log(sum(exp(x))) of a row: a normaliser, a log-likelihood of a mixture, a z-loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING
from nanhunt.operations.fix import Fix
from nanhunt.operations.operation import Block, Facts, Operation, Unit
from nanhunt.operations.rule import Rule
from nanhunt.operations.usual import (
    at_fault,
    fails,
    in_float32,
    input_facts,
    input_rules,
    numpy_of,
    plan_of_rows,
    row_of,
    says,
    slots_of,
    vanished,
    wrong_rules,
)
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Bools, Tensors


@dataclass(frozen=True, kw_only=True)
class LogsumexpOptions:
    """The logarithm of a sum of exponentials."""


plan = plan_of_rows("logsumexp", "nothing to add up", "The sum is over the last axis.")


def naive(t: Tensors, options: LogsumexpOptions) -> torch.Tensor:
    """x.exp().sum(-1).log()."""
    return t["logits"].exp().sum(-1).log()


def max_first(t: Tensors, options: LogsumexpOptions) -> torch.Tensor:
    """m = x.max(-1); m + (x - m).exp().sum(-1).log()."""
    x = t["logits"]
    largest = x.amax(-1, keepdim=True)
    return largest[..., 0] + (x - largest).exp().sum(-1).log()


def with_log1p(t: Tensors, options: LogsumexpOptions) -> torch.Tensor:
    """m + log1p of the sum over all but the largest: exact where one class is far above the others."""
    import torch

    x = t["logits"]
    largest, at = x.max(-1, keepdim=True)
    others = (x - largest).exp().scatter(-1, at, 0.0)
    return largest[..., 0] + torch.log1p(others.sum(-1))


def where_first(t: Tensors, options: LogsumexpOptions) -> torch.Tensor:
    """logsumexp of rows that hold something; -inf for a row of -inf, without a gradient."""
    import torch

    x = t["logits"]
    empty = x.isneginf().all(-1, keepdim=True)
    return torch.where(empty[..., 0], -math.inf, x.masked_fill(empty, 0.0).logsumexp(-1))


def fused(t: Tensors, options: LogsumexpOptions) -> torch.Tensor:
    """torch.logsumexp(x, -1)."""
    return t["logits"].logsumexp(-1)


def truth(t: Tensors, options: LogsumexpOptions) -> torch.Tensor:
    """The largest first, the others through log1p, float64; -inf for a row of -inf."""
    import torch

    x = t["logits"]
    empty = x.isneginf().all(-1)
    return torch.where(
        empty, -math.inf, with_log1p({"logits": x.masked_fill(empty[..., None], 0.0)}, options)
    )


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, empty: each bool (rows,)."""
    found = input_facts(block, ["logits"], masks=["logits"])
    return numpy_of({**found, "empty": block.cast["logits"].isneginf().all(-1)})


_ROW = row_of("logits")
_FUSED: Fix[Any] = Fix("torch.logsumexp", "output = {logits}.logsumexp(-1)")
_FLOAT32 = in_float32("logsumexp", _FUSED.code)
_WHERE: Fix[Any] = Fix(
    "replace the row before logsumexp, and its value afterwards",
    "empty = logits.isneginf().all(-1, keepdim=True)\n"
    "safe = {logits}.masked_fill(empty, 0.0).logsumexp(-1)\n"
    "output = safe.masked_fill(empty[..., 0], -torch.inf)",
)
_WHERE_AFTER: Fix[Any] = Fix(
    "where after logsumexp",
    "empty = logits.isneginf().all(-1)\noutput = torch.where(empty, -torch.inf, {logits}.logsumexp(-1))",
    tempting=True,
)
_FINITE: Fix[Any] = Fix(
    "clamp the logits at finfo.min",
    "output = {logits}.clamp(min=torch.finfo(logits.dtype).min).logsumexp(-1)",
    changes="a row of nothing counts as a row of equal numbers", tempting=True,
)  # fmt: skip
_EPS: Fix[Any] = Fix("log(sum + 1e-8)", "output = ({logits}.exp().sum(-1) + 1e-8).log()", tempting=True)
_CLAMP: Fix[Any] = Fix(
    "clamp the sum", "output = {logits}.exp().sum(-1).clamp(min=1e-8).log()", tempting=True
)


def _too_many(unit: Unit) -> str:
    true = unit.value("truth")
    return f"{_ROW(unit)}: the sum of their exponentials is inf in {unit.dtype}; the truth is {true:.6g}"


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
RULES: tuple[Rule[Facts, Any, Any], ...] = (
    *input_rules("logsumexp", "NH83", masks=["logits"]),
    Rule(
        "NH833", "logsumexp-of-nothing", _E,
        "Every number of the row is -inf: the value is -inf, and right; the gradient of torch.logsumexp is NaN.",
        "The backward pass computes exp(x - logsumexp) = exp(-inf - -inf) = NaN.",
        "Replace such a row by a finite one before logsumexp and its value afterwards, or leave it out.",
        operation="logsumexp", holds=lambda f: f.own["empty"] & fails(f.fused) & ~at_fault(f),
        arithmetic=says("fused", _ROW), fixes=(_WHERE, _WHERE_AFTER, _FINITE),
    ),
    Rule(
        "NH834", "logsumexp-not-finite", _E,
        "Even torch.logsumexp is infinite, or its gradient is not finite.",
        "It stores the sum of exponentials in the dtype: in float16 65,520 equal numbers add up to infinity.",
        "Compute it in float32.",
        operation="logsumexp", holds=lambda f: fails(f.fused) & ~f.own["empty"] & ~at_fault(f), arithmetic=_too_many,
        fixes=(_FLOAT32,),
    ),
    Rule(
        "NH835", "exp-sum-overflow", _W,
        "log(sum(exp(x))) is infinite: the exponentials, or their sum, overflow or are all 0.",
        "exp leaves the format's range long before its logarithm would come back into it.",
        "Call torch.logsumexp, which subtracts the largest number first.",
        operation="logsumexp", holds=lambda f: f.naive.bad_value & ~at_fault(f),
        arithmetic=says("naive", _ROW), fixes=(_FUSED, _EPS, _CLAMP),
    ),
    Rule(
        "NH836", "exp-sum-gradient", _W,
        "log(sum(exp(x))) is finite, its gradient is not.",
        "The backward pass of the logarithm divides by the sum, and 1 / sum overflows while the sum is above 0.",
        "Call torch.logsumexp.",
        operation="logsumexp",
        holds=lambda f: f.naive.bad_gradient & ~f.naive.bad_value & ~f.own["empty"] & ~at_fault(f),
        arithmetic=says("naive", _ROW), fixes=(_FUSED, _EPS, _CLAMP),
    ),
    *wrong_rules(
        "logsumexp", "NH837", "NH838", "Exponentials below the format's smallest normal number lose their digits.",
        "Call torch.logsumexp.", _ROW, _FUSED, _FLOAT32,
    ),
    vanished("logsumexp", "NH839", "torch.logsumexp", _ROW, _FLOAT32),
)  # fmt: skip

LOGSUMEXP = Operation(
    name="logsumexp",
    what="log(exp(x).sum(-1)), row by row; -inf entries are legal.",
    unit="row",
    fused_call="torch.logsumexp",
    roles=(
        Role(
            "logits", r".*logits?|(.*[_-])?scores?|(.*[_-])?log[_-]?(weights|likelihoods?)", FLOATING, dimensions=1,
            what="(..., classes) float, -inf for what is masked", gradient="unit",
        ),
    ),
    options=LogsumexpOptions,
    plan=plan,
    forms={
        "naive": naive, "max-first": max_first, "with-log1p": with_log1p, "where-first": where_first, "fused": fused,
    },
    truth=truth,
    facts=facts,
    rules=RULES,
    slots=slots_of("logits"),
    shapes={"logits": (32, 10)},
)  # fmt: skip
