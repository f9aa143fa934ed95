"""What exp and sums of it make."""

from __future__ import annotations

import math
from collections.abc import Callable

from nanhunt.dtypes.formats import FORMATS
from nanhunt.watch.scene import Scene

from .pattern import Pattern, grown_to, named, rule_named

_EXPS = named("exp exp2 expm1 sinh cosh")
SOFTMAX = "Call torch.softmax or torch.log_softmax instead: it subtracts the row's maximum first."
_BY_HAND = {
    "softmax": SOFTMAX,
    "quotient": "Take torch.log_softmax of the argument and pick from that: it subtracts the row's maximum first.",
    "logsumexp": "Call torch.logsumexp instead: it subtracts the row's maximum first.",
}


def by_hand(name: str) -> Callable[[Scene], str]:
    """Advice for a softmax made of exps: the catalogue's where it is cross entropy."""
    return lambda at: (
        rule_named(name).fix if at.cross_entropy or not at.softmax else _BY_HAND[at.softmax.handwritten]
    )


def _exp_limit(scene: Scene) -> float:
    """The largest argument whose result is finite."""
    limit = FORMATS[scene.dtype].exp_limit
    return {"exp2": math.log2(scene.limit), "sinh": limit + math.log(2), "cosh": limit + math.log(2)}.get(
        scene.op, limit
    )


def _exp_overflow(scene: Scene) -> bool:
    return bool(scene.out.posinf or scene.out.neginf) and scene.from_finite and scene.dtype in FORMATS


def _exp_reason(scene: Scene) -> str:
    limit = f"{_exp_limit(scene):.6g}, the largest x whose {scene.op} is finite in {scene.dtype}"
    difference = (
        "; x is a difference, so exp(x) is a ratio" if scene.made_by("sub") and not scene.handwritten else ""
    )
    seen = f"max {scene.largest:.6g} >" if scene.seen else "x is larger than"
    return f"{seen} {limit}{difference}"


def _bound_exp(scene: Scene) -> str:
    bound = math.floor(0.9 * _exp_limit(scene)) if not scene.made_by("sub") or scene.half else 20
    clamp = f"clamp(-{bound}, {bound})" if scene.made_by("sub") else f"clamp(max={bound})"
    return (
        f"Bound the argument of {scene.op}: x.{clamp} keeps it finite, with gradient 0 beyond; "
        f"and see why it grew{grown_to(scene, scene.largest)}."
    )


PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "exp-overflow", _EXPS, lambda at: _exp_overflow(at) and at.handwritten and at.op == "exp", _exp_reason,
        by_hand("exp-overflow"), is_rule=True,
    ),
    Pattern("exp-overflow", _EXPS, _exp_overflow, _exp_reason, _bound_exp),
)  # fmt: skip
"""The particular before the general."""
