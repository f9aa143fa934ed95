"""KL(target || q), row by row: distillation, a reference policy, label smoothing by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING
from nanhunt.operations.fix import Fix
from nanhunt.operations.kl_options import KlOptions
from nanhunt.operations.operation import Block, Facts, Operation, Plan, Sliced, Unit
from nanhunt.operations.rule import Rule
from nanhunt.operations.usual import (
    at_fault,
    fails,
    input_facts,
    input_rules,
    numpy_of,
    says,
    wrong_rules,
)
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Bools, Tensors


def plan(shapes: Mapping[str, tuple[int, ...]], options: KlOptions) -> Plan:
    """Every row of (..., classes) is a unit of its own. Raises NanhuntError unless both have one shape."""
    name = "log_probs" if "log_probs" in shapes else "logits"
    given, target = shapes[name], shapes["target"]
    if given != target or not given or given[-1] == 0:
        raise NanhuntError(
            f"--op kl: {name} of shape {given} and target of shape {target} do not fit.",
            "Both hold a distribution in the last axis, one number a class.",
        )
    return Plan(given[:-1], (), {each: Sliced(given, 1) for each in shapes})


def log_q(t: Tensors) -> torch.Tensor:
    """The log-probabilities: given, or of logits."""
    return t["log_probs"] if "log_probs" in t else t["logits"].log_softmax(-1)


def p_of(t: Tensors, options: KlOptions) -> torch.Tensor:
    """The target as probabilities."""
    return t["target"].exp() if options.log_target else t["target"]


def naive(t: Tensors, options: KlOptions) -> torch.Tensor:
    """(p * (p / q).log()).sum(-1); with log_target (p.exp() * (p - log q)).sum(-1)."""
    if options.log_target:
        return (t["target"].exp() * (t["target"] - log_q(t))).sum(-1)
    p = t["target"]
    return (p * (p / log_q(t).exp()).log()).sum(-1)


def log_difference(t: Tensors, options: KlOptions) -> torch.Tensor:
    """(p * (p.log() - log q)).sum(-1)."""
    p = p_of(t, options)
    return (p * (p.log() - log_q(t))).sum(-1)


def xlogy(t: Tensors, options: KlOptions) -> torch.Tensor:
    """(torch.xlogy(p, p) - p * log q).sum(-1)."""
    import torch

    p = p_of(t, options)
    return (torch.xlogy(p, p) - p * log_q(t)).sum(-1)


def where_first(t: Tensors, options: KlOptions) -> torch.Tensor:
    """Only classes with p > 0: both logarithms are replaced before the product."""
    import torch

    p, given = p_of(t, options), log_q(t)
    counts = p > 0
    log_p = t["target"].where(counts, 0.0) if options.log_target else torch.where(counts, p, 1.0).log()
    return (p * (log_p - torch.where(counts, given, 0.0))).sum(-1)


def fused(t: Tensors, options: KlOptions) -> torch.Tensor:
    """F.kl_div(log q, p, reduction="none").sum(-1)."""
    import torch.nn.functional as F

    return F.kl_div(log_q(t), t["target"], reduction="none", log_target=options.log_target).sum(-1)


def truth(t: Tensors, options: KlOptions) -> torch.Tensor:
    """Only classes with p > 0, float64."""
    return where_first(t, options)


def scale(t: Tensors, true: torch.Tensor, options: KlOptions) -> torch.Tensor:
    """The largest log-probability that counts: what is left of the terms' sum is as exact as they are."""
    import torch

    given, target = log_q(t), t["target"]
    sizes = torch.where((target != 0) & given.isfinite(), given, 0.0).abs().amax(-1)
    logs = (
        torch.where(target.isfinite() & (target < 0), target, 0.0).abs().amax(-1)
    )  # of a target in logarithms
    return (sizes + logs).clamp_min(1.0)


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, bad_target, disjoint, both_masked: each bool (rows,)."""
    t, options = block.cast, block.options
    masks = ["log_probs", "logits"] + (["target"] if options.log_target else [])
    p, given = p_of(t, options), log_q(t)
    return numpy_of({
        **input_facts(block, ["log_probs", "logits", "target"], masks=masks),
        "bad_target": (p < 0).any(-1),
        "disjoint": ((p > 0) & given.isneginf()).any(-1),
        "both_masked": ((p == 0) & given.isneginf()).any(-1),
    })  # fmt: skip


def _input(f: Facts) -> Bools:
    return at_fault(f) | f.own["bad_target"] | f.own["disjoint"]


def _row(unit: Unit) -> str:
    p, given = p_of(unit.cast, unit.options), log_q(unit.cast)
    parts = [f"{p.numel():,} classes", f"target 0 in {int((p == 0).sum()):,} of them"]
    parts += [f"log q -inf in {int(given.isneginf().sum()):,}"] if bool(given.isneginf().any()) else []
    return ", ".join(parts)


def _excluded(unit: Unit) -> str:
    p, given = p_of(unit.cast, unit.options), log_q(unit.cast)
    at = ((p > 0) & given.isneginf()).nonzero()[0]
    return f"class {int(at[-1])}: target {float(p[tuple(at)]):.6g}, log q = -inf: p * (log p - log q) = inf"


def slots(problem: Any) -> Mapping[str, str]:
    """What the templates below hold for the user's tensors and options."""
    logs = problem.options.log_target
    return {
        "q": "log_probs{cast}" if "log_probs" in problem.tensors else "logits{cast}.log_softmax(-1)",
        "p": "target{cast}.exp()" if logs else "target{cast}",
        "target": "target{cast}",
        "log_p": "torch.where(counts, target{cast}, 0.0)" if logs else "torch.where(counts, p, 1.0).log()",
        "options": ", log_target=True" if logs else "",
        "reduction": problem.reduction,
    }


_CODE = 'loss = F.kl_div({q}, {target}, reduction="none"{options}).sum(-1).{reduction}()'
# Its gradient for a target that is 0 is NaN (pytorch 2.13).
_KL_DIV: Fix[Any] = Fix("F.kl_div, where the target itself is not trained", _CODE)
_WHERE_CODE = (
    "p = {p}\ncounts = p > 0\nlog_p = {log_p}\nlog_q = torch.where(counts, {q}, 0.0)\n"
    "loss = (p * (log_p - log_q)).sum(-1).{reduction}()"
)
_WHERE: Fix[Any] = Fix("leave p = 0 out before the product", _WHERE_CODE)
_FLOAT32: Fix[Any] = Fix(
    "leave p = 0 out before the product, in float32", _WHERE_CODE, slots={"cast": ".float()"},
    when=lambda p: p.narrow,
)  # fmt: skip
_NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on the terms",
    "p = {p}\nloss = torch.nan_to_num(p * (p / {q}.exp()).log()).sum(-1).{reduction}()",
    tempting=True,
)
_WHERE_AFTER: Fix[Any] = Fix(
    "where after the product",
    "p = {p}\nq = {q}.exp()\nloss = torch.where(p > 0, p * (p / q).log(), 0.0).sum(-1).{reduction}()",
    tempting=True,
)
_EPS: Fix[Any] = Fix(
    "log((p + 1e-8) / (q + 1e-8))",
    "p = {p}\nq = {q}.exp()\nloss = (p * ((p + 1e-8) / (q + 1e-8)).log()).sum(-1).{reduction}()",
    tempting=True,
)
_WAYS_OUT = (_KL_DIV, _WHERE, _FLOAT32, _EPS, _NAN_TO_NUM, _WHERE_AFTER)

_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
RULES: tuple[Rule[Facts, Any, Any], ...] = (
    *input_rules("kl", "NH86", masks=["log_probs", "logits"]),
    Rule(
        "NH863", "kl-target-negative", _E,
        "A probability of the target is negative.",
        "It has no logarithm: F.kl_div gives NaN, or a number that means nothing.",
        "Give probabilities, or log-probabilities with --log-target.",
        operation="kl", holds=lambda f: f.own["bad_target"] & ~at_fault(f), arithmetic=_row, input_at_fault=True,
    ),
    Rule(
        "NH864", "kl-infinite", _E,
        "The target gives a probability to a class whose log q is -inf: the divergence is infinite in truth.",
        "A mask that forbids what the target holds; no way of writing it makes the loss finite.",
        "Mask both alike, and normalise the target over what is left.",
        operation="kl", holds=lambda f: f.own["disjoint"] & ~f.own["bad_target"] & ~at_fault(f), arithmetic=_excluded,
        input_at_fault=True,
    ),
    Rule(
        "NH865", "kl-masked-in-both", _E,
        "Even F.kl_div is NaN: a class has target 0 and log q = -inf, as under a mask that both share.",
        "F.kl_div computes xlogy(p, p) - p * log q, and 0 * -inf is NaN; in log space it is 0 * (-inf - -inf).",
        "Replace log q (and log p) by 0 where p is 0, before the product.",
        operation="kl", holds=lambda f: f.own["both_masked"] & fails(f.fused) & ~_input(f),
        arithmetic=says("fused", _row), fixes=(_WHERE, _WHERE_AFTER),
    ),
    Rule(
        "NH866", "kl-not-finite", _E,
        "Even F.kl_div is not finite, or its gradient is not.",
        "A log target of -inf: exp(-inf) * (-inf - log q) = 0 * -inf = NaN; or numbers that leave the dtype.",
        "Leave p = 0 out before the product, and compute it in float32.",
        operation="kl", holds=lambda f: fails(f.fused) & ~f.own["both_masked"] & ~_input(f),
        arithmetic=says("fused", _row), fixes=(_WHERE, _FLOAT32, _WHERE_AFTER),
    ),
    Rule(
        "NH867", "naive-kl-not-finite", _W,
        "p * log(p / q) is not finite, or its gradient is not.",
        "p = 0 has log 0 = -inf, and 0 * -inf is NaN; q = exp(log q) that underflows to 0 is divided by.",
        "Call F.kl_div on log q; or leave p = 0 out before the product.",
        operation="kl", holds=lambda f: fails(f.naive) & ~fails(f.fused) & ~_input(f),
        arithmetic=says("naive", _row), fixes=_WAYS_OUT,
    ),
    *wrong_rules(
        "kl", "NH868", "NH869", "p / q is rounded before its logarithm is taken, or q has lost its digits.",
        "Subtract log q instead of dividing by q.", _row, _KL_DIV, _FLOAT32,
    ),
    Rule(
        "NH86A", "kl-log-of-target", _N,
        "p * (log p - log q), with the logarithm taken of p, is NaN where p is 0.",
        "0 * -inf is NaN; F.kl_div leaves such a class out, for its value and for the gradient of log q.",
        "Call F.kl_div. Where the target is trained too: even its gradient there is NaN, leave p = 0 out by hand.",
        operation="kl", holds=lambda f: fails(f.by["log-difference"]) & ~fails(f.naive) & ~_input(f),
        arithmetic=says("log-difference", _row), fixes=(_KL_DIV, _WHERE),
    ),
)  # fmt: skip

KL = Operation(
    name="kl",
    what="KL(target || q) = (p * (log p - log q)).sum(-1), row by row; targets of 0 are legal.",
    unit="row",
    fused_call="F.kl_div",
    roles=(
        Role(
            "log_probs", r"(.*[_-])?(log[_-]?q|log[_-]?(probs|softmax)|logps)|(student[_-])?log[_-]?probs", FLOATING,
            dimensions=1, required=False, replaces=("logits",),
            what="(..., classes) float: log q", gradient="unit",
        ),
        Role(
            "logits", r".*logits?|(.*[_-])?scores?", FLOATING, dimensions=1,
            what="(..., classes) float: scores whose log_softmax is log q", gradient="unit",
        ),
        Role(
            "target", r"(.*[_-])?targets?([_-]probs?)?|teacher([_-](log[_-]?)?probs)?|p", FLOATING, dimensions=1,
            what="the same shape: probabilities, or log-probabilities with --log-target",
        ),
    ),
    options=KlOptions,
    plan=plan,
    forms={
        "naive": naive, "log-difference": log_difference, "xlogy": xlogy, "where-first": where_first, "fused": fused,
    },
    truth=truth,
    facts=facts,
    rules=RULES,
    slots=slots,
    scale=scale,
    reduces=True,
    shapes={"log_probs": (32, 10), "target": (32, 10)},
)  # fmt: skip
