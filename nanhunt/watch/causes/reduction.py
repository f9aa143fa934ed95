"""What a sum, a mean or a spread makes."""

from __future__ import annotations

from nanhunt.watch.scene import Scene

from .exp import by_hand
from .overflow import WIDE
from .pattern import Pattern, named, say

_EMPTY = "Skip the term when nothing is selected, or divide a sum by the count clamped at 1."


def _of_nothing(scene: Scene) -> bool:
    nothing = scene.given is None or not scene.given.values
    return scene.out.nan > 0 and nothing and scene.op == "mean"


def _sums_up(scene: Scene) -> bool:
    return scene.given is not None and scene.given.finite and not scene.out.finite and scene.from_finite


def _sum_reason(scene: Scene) -> str:
    assert scene.given is not None
    return (
        f"{scene.given.values:,} finite values up to {scene.largest:.6g} add up past {scene.limit:.6g}, "
        f"the largest {scene.dtype}"
    )


def _of_one_value(scene: Scene) -> bool:
    return (
        scene.out.nan > 0
        and scene.from_finite
        and (scene.given is None or scene.given.values <= scene.out.values)
    )


PATTERNS: tuple[Pattern, ...] = (
    Pattern("mean-of-nothing", named("mean"), _of_nothing, say("the mean of no values is 0 / 0"), say(_EMPTY)),
    Pattern(
        "sum-overflow", named("sum mean"), lambda at: _sums_up(at) and at.handwritten, _sum_reason,
        by_hand("sum-overflow"), is_rule=True,
    ),
    Pattern("sum-overflow", named("sum mean cumsum"), lambda at: _sums_up(at) and at.half, _sum_reason, say(WIDE)),
    Pattern(
        "spread-of-one-value", named("std var std_mean var_mean"), _of_one_value,
        say("the standard deviation of one value is 0 / 0: it divides by the count less one"),
        say("Skip groups of one, or pass correction=0: their spread is then 0 (add a small constant before dividing)."),
    ),
)  # fmt: skip
"""The particular before the general."""
