"""log p of p = softmax(x): of sampling, of distillation, of every log-probability that is taken from logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING
from nanhunt.operations.fix import Fix
from nanhunt.operations.operation import Block, Facts, Operation
from nanhunt.operations.rule import Rule
from nanhunt.operations.usual import (
    at_fault,
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
    wrong_rules,
)
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Bools, Tensors


@dataclass(frozen=True, kw_only=True)
class SoftmaxOptions:
    """A softmax and its logarithm."""


plan = plan_of_rows("softmax", "no classes", "The last axis is the distribution.")


def naive(t: Tensors, options: SoftmaxOptions) -> torch.Tensor:
    """e = exp(x); log(e / e.sum(-1))."""
    e = t["logits"].exp()
    return (e / e.sum(-1, keepdim=True)).log()


def log_of_softmax(t: Tensors, options: SoftmaxOptions) -> torch.Tensor:
    """log(softmax(x)): -inf, and a NaN gradient, where a probability is 0."""
    return t["logits"].softmax(-1).log()


def max_first(t: Tensors, options: SoftmaxOptions) -> torch.Tensor:
    """d = x - x.max(-1); d - log(exp(d).sum(-1))."""
    x = t["logits"]
    d = x - x.amax(-1, keepdim=True)
    return d - d.exp().sum(-1, keepdim=True).log()


def fused(t: Tensors, options: SoftmaxOptions) -> torch.Tensor:
    """F.log_softmax(x, -1): the logarithm directly, of no probability."""
    return t["logits"].log_softmax(-1)


def truth(t: Tensors, options: SoftmaxOptions) -> torch.Tensor:
    """The largest subtracted, the others through log1p, float64: the log p of a sure class keeps its digits."""
    import torch

    x = t["logits"]
    largest, at = x.max(-1, keepdim=True)
    below = x - largest
    return below - torch.log1p(below.exp().scatter(-1, at, 0.0).sum(-1, keepdim=True))


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, nothing, exp_sum (which is infinite or 0): each bool (rows,)."""
    x = block.cast["logits"]
    total = x.exp().sum(-1)
    found = input_facts(block, ["logits"], masks=["logits"])
    return numpy_of({**found, "nothing": x.isneginf().all(-1), "exp_sum": total.isinf() | (total == 0)})


_ROW = row_of("logits")
_FUSED: Fix[Any] = Fix("F.log_softmax", "output = F.log_softmax({logits}, -1)")
_FLOAT32 = in_float32("log-softmax", _FUSED.code)
_EPS: Fix[Any] = Fix(
    "log(p + 1e-8)", "output = ({logits}.softmax(-1) + 1e-8).log()",
    changes="no log p is below -18.4", tempting=True,
)  # fmt: skip
_CLAMP: Fix[Any] = Fix(
    "clamp p at 1e-30", "output = {logits}.softmax(-1).clamp(min=1e-30).log()",
    changes="no log p is below -69, and there it has no gradient", tempting=True,
)  # fmt: skip
_NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on log p", "output = torch.nan_to_num({logits}.softmax(-1).log())", tempting=True
)
_WAYS_OUT = (_FUSED, _EPS, _CLAMP, _NAN_TO_NUM)


def _breaks_otherwise(f: Facts) -> Bools:
    """Rows whose sum of exponentials is an ordinary number, and some probability 0."""
    return (fails(f.naive) | fails(f.by["log-of-softmax"])) & ~f.own["exp_sum"] & ~at_fault(f)


_E, _W = Severity.ERROR, Severity.WARNING
RULES: tuple[Rule[Facts, Any, Any], ...] = (
    *input_rules("softmax", "NH94", masks=["logits"]),
    Rule(
        "NH943", "softmax-of-nothing", _E,
        "Every logit of the row is -inf.",
        "The softmax over nothing is 0/0: there is no distribution.",
        "Leave such rows (padding, states without a legal action) out before the softmax.",
        operation="softmax", holds=lambda f: f.own["nothing"], arithmetic=_ROW, input_at_fault=True,
    ),
    fused_fails("softmax", "NH944", "F.log_softmax", _ROW, _FLOAT32),
    Rule(
        "NH945", "softmax-exp-overflow", _W,
        "exp(x) / sum(exp(x)) is NaN: the sum of the exponentials is infinite, or 0.",
        "exp leaves the format's range long before the quotient would come back into it.",
        "Call F.log_softmax (torch.softmax), which subtracts the largest logit first.",
        operation="softmax", holds=lambda f: fails(f.naive) & f.own["exp_sum"] & ~at_fault(f),
        arithmetic=says("naive", _ROW), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH946", "log-of-zero-probability", _W,
        "A probability is 0: log(softmax(x)) is -inf, and its gradient NaN under a -inf mask as well.",
        "The backward pass of log divides by p: 0 / 0, although nothing depends on a masked class.",
        "Call F.log_softmax: it computes the logarithm directly.",
        operation="softmax", holds=_breaks_otherwise, arithmetic=says("log-of-softmax", _ROW), fixes=_WAYS_OUT,
    ),
    *wrong_rules(
        "softmax", "NH947", "NH948", "A probability below the format's smallest normal number loses its digits.",
        "Call F.log_softmax.", _ROW, _FUSED, _FLOAT32,
    ),
)  # fmt: skip

SOFTMAX = Operation(
    name="softmax",
    what="log softmax(x), row by row: the logarithm taken directly against that of a probability; -inf is legal.",
    unit="row",
    fused_call="F.log_softmax",
    roles=(
        Role(
            "logits", r".*logits?|(.*[_-])?scores?", FLOATING, dimensions=1,
            what="(..., classes) float, -inf for what is masked", gradient="unit",
        ),
    ),
    options=SoftmaxOptions,
    plan=plan,
    forms={"naive": naive, "log-of-softmax": log_of_softmax, "max-first": max_first, "fused": fused},
    truth=truth,
    facts=facts,
    rules=RULES,
    slots=slots_of("logits"),
    shapes={"logits": (32, 10)},
)  # fmt: skip
