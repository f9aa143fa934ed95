"""What a division by 0 makes, and a power that is one."""

from __future__ import annotations

from collections.abc import Callable

from nanhunt.watch.scene import Scene

from .exp import by_hand
from .log import EPS
from .pattern import Pattern, named, say, zeros

_DIVISIONS = named("div true_divide reciprocal rsqrt fmod remainder")
_DIVIDE = "Guard the divisor (clamp it away from 0) or leave such rows out before dividing."
_COUNT = "Divide by the count with a floor: x.sum() / mask.sum().clamp(min=1); the term is then 0."


def divides_by_zero(scene: Scene) -> bool:
    """Whether the last input holds zeros."""
    return scene.last is not None and scene.last.zero > 0


def _division_reason(scene: Scene) -> str:
    below = scene.last
    if below is None:
        return "division by 0"
    what = "0 / 0 is NaN" if scene.out.nan else "division by 0"
    return f"{what}: {zeros(below, 'divisors')}"


def _because(text: str) -> Callable[[Scene], str]:
    return lambda scene: f"{_division_reason(scene)}: {text}"


def _by_count(scene: Scene) -> bool:
    return divides_by_zero(scene) and scene.divisor_is_count


def _by_lost_eps(scene: Scene) -> bool:
    return divides_by_zero(scene) and scene.lost_eps is not None


def _lost_eps_reason(scene: Scene) -> str:
    return f"{_division_reason(scene)}, since {scene.lost_eps:g} is 0 in {scene.dtype}"


def _by(*names: str) -> Callable[[Scene], bool]:
    def holds(scene: Scene) -> bool:
        made = scene.divisor_maker
        return (
            divides_by_zero(scene)
            and made is not None
            and made.func.__name__.removeprefix("linalg_") in names
        )

    return holds


def _power_of_zero(scene: Scene) -> bool:
    return scene.given is not None and scene.given.zero > 0 and any(one < 0 for one in scene.item.scalars)


def _power_zero_reason(scene: Scene) -> str:
    assert scene.given is not None
    return f"0 to a negative power: {zeros(scene.given, 'bases')}"


PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "division-by-zero", _DIVISIONS, lambda at: 0 in at.item.scalars and len(at.item.inputs) == 1,
        say("the divisor is the number 0"), say(_DIVIDE),
    ),
    Pattern(
        "sum-underflow", _DIVISIONS, lambda at: divides_by_zero(at) and at.out.nan > 0 and at.handwritten,
        _because("every exp of the row underflowed"), by_hand("sum-underflow"), is_rule=True,
    ),
    Pattern(
        "division-by-zero", _DIVISIONS, _by_lost_eps, _lost_eps_reason,
        say(EPS),
    ),
    Pattern("empty-selection", _DIVISIONS, _by_count, _because("nothing was selected, the count is 0"), say(_COUNT)),
    Pattern(
        "zero-vector", _DIVISIONS, _by("norm", "vector_norm"), _because("the norm of a zero vector"),
        say("Use F.normalize(x, dim=-1), or clamp the norm: x.norm(dim=-1, keepdim=True).clamp(min=1e-6)."),
    ),
    Pattern(
        "no-spread", _DIVISIONS, _by("std", "var"), _because("all values are equal, their spread is 0"),
        say("Add a small constant to the spread, or leave such a group out."),
    ),
    Pattern("division-by-zero", _DIVISIONS, divides_by_zero, _division_reason, say(_DIVIDE)),
    Pattern("division-by-zero", named("pow float_power"), _power_of_zero, _power_zero_reason, say(_DIVIDE)),
    Pattern(
        "power-of-negative", named("pow float_power"), lambda at: at.out.nan > 0 and at.smallest < 0,
        lambda at: f"a fractional power of a negative number (min {at.smallest:.6g}) is NaN",
        say("Clamp the base at 0, or use an integer exponent."),
    ),
)  # fmt: skip
"""The particular before the general."""
