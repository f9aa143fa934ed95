"""How it came, in words and in a line of blocks: what grows over the steps, and what never changes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from nanhunt.render import phrases
from nanhunt.render.blocks import ASCII_LEVELS, LEVELS
from nanhunt.results.runup import Curve, Growth, Point

TOLD = 2
"""Curves in words."""
DRAWN = 5
COLUMNS = 24
"""Of a line of blocks."""
_ZEROS = 0.25
"""Rise of the share of zeros that is told."""


def growing(curves: Sequence[Curve]) -> list[Curve]:
    """Those that grow, the first to cross its limit first."""
    found = [(curve.growth.crossing, index) for index, curve in enumerate(curves) if curve.growth]
    return [curves[index] for _, index in sorted(found)]


def sentences(curves: Sequence[Curve], unit: str, *, ascii: bool = False) -> list[str]:
    """What grows with its chart, what becomes 0, what never changes."""
    grown = growing(curves)
    told = [
        line for curve in grown[:TOLD] if curve.growth for line in _grows(curve, curve.growth, unit, ascii)
    ]
    more = len(grown) - TOLD
    told += (
        [f"and {phrases.plural(more, 'more layer')} that {'grows' if more == 1 else 'grow'}"]
        if more > 0
        else []
    )
    return [*told, *_zeros(curves), *_still(curves)]


def _grows(curve: Curve, growth: Growth, unit: str, ascii: bool) -> Iterator[str]:
    """What was seen, then what to expect; or how much room was left when it went bad."""
    first, last = curve.healthy[0], curve.healthy[-1]
    yield (
        f"{last.largest_of} grows {sparkline(curve, ascii=ascii)} from {first.largest:.3g} at {unit} {first.step} to "
        f"{last.largest:.3g} at {unit} {last.step}, doubling every {_few_digits(growth.doubling)} {unit}s"
    )
    kind = "largest x whose exp is finite in" if curve.role == "logits" else "largest number of"
    limit = f"{curve.limit:.5g}, the {kind} {curve.dtype}"
    above = next((point for point in curve.points if not point.bad and point.largest > curve.limit), None)
    if above:
        yield f"from {unit} {above.step} on it is above {limit}"
    elif len(curve.healthy) < len(curve.points):
        yield f"there it was still {_few_digits(curve.limit / last.largest)} times below {limit}"
    else:
        yield (
            f"at that rate it reaches {limit}, about {unit} {_round(growth.crossing)} "
            f"({_round(growth.earliest)} {_until(growth)})"
        )


def _few_digits(value: float) -> str:
    """Two, and no exponent up to a million: what was fitted to some points is not known better."""
    return phrases.count(round(value)) if 10 <= value < 1e6 else f"{value:.2g}"


def _round(step: float) -> str:
    return phrases.count(math.ceil(step))


def _until(growth: Growth) -> str:
    return "or later" if growth.latest is None else f"to {_round(growth.latest)}"


def _zeros(curves: Sequence[Curve]) -> Iterator[str]:
    rising = sorted(
        (curve for curve in curves if curve.zeros_rise >= _ZEROS), key=lambda each: -each.zeros_rise
    )
    for curve in rising[:1]:
        first, last = curve.healthy[0], curve.healthy[-1]
        more = f" (and {phrases.plural(len(rising) - 1, 'more layer')})" if len(rising) > 1 else ""
        yield f"zeros of {label(curve)} rise from {first.zeros:.0%} to {last.zeros:.0%} of its values{more}"


def _still(curves: Sequence[Curve]) -> Iterator[str]:
    """What never changes, where other things do: it is frozen, or nothing reaches it."""
    still = [curve for curve in curves if curve.stays and len(curve.healthy) >= len(LEVELS) // 2]
    if still and len(still) < len(curves):
        names = ", ".join(map(label, still[:3]))
        more = f" and {len(still) - 3} more" if len(still) > 3 else ""
        yield f"never changes: {len(still)} of {phrases.plural(len(curves), 'layer')} ({names}{more})"


def label(curve: Curve) -> str:
    """What a curve is called in words and pictures."""
    if curve.layer is None:
        return curve.points[-1].largest_of
    return " ".join(filter(None, (f"layer {curve.layer}", curve.phase if curve.phase != "model" else "")))


def sparkline(curve: Curve, *, ascii: bool = False) -> str:
    """Largest magnitudes as heights, logarithmic, from the smallest to the largest; "x" where it is bad."""
    levels = (ASCII_LEVELS if ascii else LEVELS)[1:]
    points = _thinned(curve.points, COLUMNS)
    logs = [math.log2(point.largest) for point in points if point.largest > 0]
    low, high = (min(logs), max(logs)) if logs else (0.0, 0.0)

    def level(point: Point) -> str:
        if point.bad:
            return "x"
        height = (math.log2(point.largest) - low) / ((high - low) or 1) if point.largest > 0 else 0
        return levels[min(int(height * len(levels)), len(levels) - 1)]

    return "".join(map(level, points))


def _thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many, evenly, the first bad one among them."""
    every = math.ceil(len(points) / most)
    bad = next((at for at, point in enumerate(points) if point.bad), 0)
    return [point for at, point in enumerate(points) if at % every == bad % every]


# ---------------------------------------------------------------------------------------------- pictures
