"""The entropy of softmax(logits), row by row: an entropy bonus, with actions or tokens that a mask forbids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING
from nanhunt.operations.fix import Fix
from nanhunt.operations.operation import Block, Facts, Operation
from nanhunt.operations.rule import Rule
from nanhunt.operations.usual import (
    at_fault,
    compares,
    fails,
    fused_fails,
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
    import numpy.typing as npt
    import torch

    from nanhunt.operations.operation import Bools, Tensors


@dataclass(frozen=True, kw_only=True)
class EntropyOptions:
    """The entropy of a softmax."""


plan = plan_of_rows("entropy", "no classes", "The last axis is the distribution.")


def naive(t: Tensors, options: EntropyOptions) -> torch.Tensor:
    """p = softmax(x); -(p * log p).sum(-1)."""
    p = t["logits"].softmax(-1)
    return -(p * p.log()).sum(-1)


def p_log_softmax(t: Tensors, options: EntropyOptions) -> torch.Tensor:
    """-(softmax(x) * log_softmax(x)).sum(-1)."""
    x = t["logits"]
    return -(x.softmax(-1) * x.log_softmax(-1)).sum(-1)


def lse_minus_px(t: Tensors, options: EntropyOptions) -> torch.Tensor:
    """logsumexp(x) - (softmax(x) * x).sum(-1), as TRL and verl write it."""
    x = t["logits"]
    return x.logsumexp(-1) - (x.softmax(-1) * x).sum(-1)


def xlogy(t: Tensors, options: EntropyOptions) -> torch.Tensor:
    """-torch.xlogy(p, p).sum(-1)."""
    import torch

    p = t["logits"].softmax(-1)
    return -torch.xlogy(p, p).sum(-1)


def entr(t: Tensors, options: EntropyOptions) -> torch.Tensor:
    """torch.special.entr(p).sum(-1)."""
    import torch

    entropy: torch.Tensor = torch.special.entr(t["logits"].softmax(-1)).sum(-1)
    return entropy


def where_first(t: Tensors, options: EntropyOptions) -> torch.Tensor:
    """-(p * torch.where(p > 0, log_softmax(x), 0)).sum(-1)."""
    import torch

    x = t["logits"]
    p = x.softmax(-1)
    return -(p * torch.where(p > 0, x.log_softmax(-1), 0.0)).sum(-1)


def fused(t: Tensors, options: EntropyOptions) -> torch.Tensor:
    """torch.distributions.Categorical(logits=x).entropy(), which clamps log p at the smallest number."""
    from torch.distributions import Categorical

    # Validation raises for the whole batch where one logit is NaN, which has a finding of its own.
    entropy: torch.Tensor = Categorical(logits=t["logits"], validate_args=False).entropy()  # type: ignore[no-untyped-call]
    return entropy


def truth(t: Tensors, options: EntropyOptions) -> torch.Tensor:
    """The sum of p * -log p over the classes that have a probability: no term is negative, so nothing cancels."""
    import torch

    x = t["logits"]
    largest, at = x.max(-1, keepdim=True)
    below = x - largest
    # log1p keeps the largest probability's distance from 1, which is all that a confident row's entropy is.
    log_p = below - torch.log1p(below.exp().scatter(-1, at, 0.0).sum(-1, keepdim=True))
    p = log_p.exp()
    return (p * torch.where(p == 0, 0.0, -log_p)).sum(-1)


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, nothing, masked: each bool (rows,)."""
    found = input_facts(block, ["logits"], masks=["logits"])
    masked = block.cast["logits"].isneginf()
    return numpy_of({**found, "nothing": masked.all(-1), "masked": masked.any(-1)})


def screen(stored: Mapping[str, npt.NDArray[Any]], options: EntropyOptions) -> bool:
    """Whether every |x| is at most 6, of no more than 2^17 classes.

    Every p is then a normal number, above e^-12 / 2^17, and its logarithm finite; the largest number on the way of any
    form is the log-sum-exp, at most 6 + log 2^17 < 18, whose rounding is far below 64 u.
    """
    x = stored["logits"]
    return bool(x.size and x.shape[-1] <= 1 << 17 and x.min() >= -6 and x.max() <= 6)


_ROW = row_of("logits")
_P = "p = {logits}.softmax(-1)\n"
_LOG_P = "log_p = {logits}.log_softmax(-1)\n"
_WHERE: Fix[Any] = Fix(
    "replace log p by 0 where p is 0, before the product",
    _P + _LOG_P + "output = -(p * torch.where(p > 0, log_p, 0.0)).sum(-1)",
)
_CATEGORICAL: Fix[Any] = Fix(
    "torch.distributions.Categorical",
    "output = torch.distributions.Categorical(logits={logits}, validate_args=False).entropy()",
)
_FLOAT32 = in_float32("entropy", _CATEGORICAL.code)
_ENTR: Fix[Any] = Fix("torch.special.entr", _P + "output = torch.special.entr(p).sum(-1)", tempting=True)
_XLOGY: Fix[Any] = Fix("torch.xlogy", _P + "output = -torch.xlogy(p, p).sum(-1)", tempting=True)
_NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on p log p", _P + "output = -torch.nan_to_num(p * p.log()).sum(-1)", tempting=True
)
_WHERE_AFTER: Fix[Any] = Fix(
    "where after the product", _P + "output = -torch.where(p > 0, p * p.log(), 0.0).sum(-1)", tempting=True
)
_EPS: Fix[Any] = Fix("log(p + 1e-8)", _P + "output = -(p * (p + 1e-8).log()).sum(-1)", tempting=True)
_WAYS_OUT = (_WHERE, _CATEGORICAL, _ENTR, _XLOGY, _NAN_TO_NUM, _WHERE_AFTER, _EPS)
_CALL = "torch.distributions.Categorical(logits=logits).entropy"

_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
RULES: tuple[Rule[Facts, Any, Any], ...] = (
    *input_rules("entropy", "NH82", masks=["logits"]),
    Rule(
        "NH823", "entropy-of-nothing", _E,
        "Every logit of the row is -inf.",
        "The softmax over nothing is 0/0: there is no distribution whose entropy could be taken.",
        "Leave such rows (padding, states without a legal action) out before the softmax.",
        operation="entropy", holds=lambda f: f.own["nothing"], arithmetic=_ROW, input_at_fault=True,
    ),
    fused_fails("entropy", "NH824", _CALL, _ROW, _FLOAT32),
    Rule(
        "NH825", "masked-entropy", _W,
        "The handwritten entropy, or its gradient, is NaN under a -inf mask.",
        "A masked class has p = 0 and log p = -inf, and 0 * -inf is NaN; what hides the NaN in the value leaves it in "
        "the gradient.",
        "Replace log p by 0 where p is 0, before the product, or take torch.distributions.Categorical.",
        operation="entropy", holds=lambda f: f.own["masked"] & fails(f.naive) & ~at_fault(f),
        arithmetic=says("naive", _ROW), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH826", "underflowed-entropy", _W,
        "The handwritten entropy is NaN although no logit is masked.",
        "The softmax of a logit far below the maximum is exactly 0, its logarithm -inf, and 0 * -inf is NaN.",
        "Take log_softmax instead of the logarithm of a softmax, and 0 for it where p is 0.",
        operation="entropy", holds=lambda f: ~f.own["masked"] & fails(f.naive) & ~at_fault(f),
        arithmetic=says("naive", _ROW), fixes=_WAYS_OUT,
    ),
    *wrong_rules(
        "entropy", "NH827", "NH828", "Many small terms are lost in the sum, or in the rounding of p.",
        "Compute the entropy in float32.", _ROW, _CATEGORICAL, _FLOAT32,
    ),
    Rule(
        "NH829", "entropy-cancellation", _N,
        "logsumexp(x) - sum(p x) is finite, and off by more than its rounding.",
        "It subtracts two numbers of the logits' size, and the entropy is what is left of them.",
        "Add up p * -log p, of which no term is negative.",
        operation="entropy", holds=lambda f: f.by["lse-minus-px"].wrong & ~f.naive.wrong,
        arithmetic=compares("lse-minus-px", _ROW), fixes=(_WHERE, _CATEGORICAL),
    ),
    vanished("entropy", "NH82A", _CALL, _ROW, _FLOAT32),
)  # fmt: skip

ENTROPY = Operation(
    name="entropy",
    what="The entropy of softmax(logits): -(p log p).sum(-1), row by row; a -inf mask is legal.",
    unit="row",
    fused_call=_CALL,
    roles=(
        Role(
            "logits", r".*logits?|(.*[_-])?scores?", FLOATING, dimensions=1,
            what="(..., classes) float, -inf for what is masked", gradient="unit",
        ),
    ),
    options=EntropyOptions,
    plan=plan,
    forms={
        "naive": naive, "p-log-softmax": p_log_softmax, "lse-minus-px": lse_minus_px, "xlogy": xlogy, "entr": entr,
        "where-first": where_first, "fused": fused,
    },
    truth=truth,
    facts=facts,
    rules=RULES,
    slots=slots_of("logits"),
    screen=screen,
    shapes={"logits": (32, 10)},
)  # fmt: skip
