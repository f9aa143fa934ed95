"""How it came, in words, in a line of blocks and in pictures: what grows over the steps, and what never changes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from nanhunt.literal import literal
from nanhunt.render import phrases
from nanhunt.render.blocks import ASCII_LEVELS, LEVELS
from nanhunt.render.svg import element, percent, picture, row
from nanhunt.results.runup import Curve, Growth, Point

TOLD = 2
"""Curves in words."""
DRAWN = 5
COLUMNS = 24
"""Of a line of blocks."""
CELLS = 6000
"""Of a grid at most; of more steps every second one, third one ... is shown."""
ROWS = 120
SHADES = 5
"""Classes g0 to g4 of the style sheet, from far below the limit to next to it."""
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
        yield f"zeros of {_label(curve)} rise from {first.zeros:.0%} to {last.zeros:.0%} of its values{more}"


def _still(curves: Sequence[Curve]) -> Iterator[str]:
    """What never changes, where other things do: it is frozen, or nothing reaches it."""
    still = [curve for curve in curves if not curve.changes and len(curve.healthy) >= len(LEVELS) // 2]
    if still and any(curve.changes for curve in curves):
        names = ", ".join(map(_label, still[:3]))
        more = f" and {len(still) - 3} more" if len(still) > 3 else ""
        yield f"never changes: {len(still)} of {phrases.plural(len(curves), 'layer')} ({names}{more})"


def _label(curve: Curve) -> str:
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


def grid(curves: Sequence[Curve]) -> Markup:
    """Steps from left to right, layers from top to bottom; the darker, the nearer to the limit; red is bad."""
    shown = curves[:ROWS]
    if not shown:
        return Markup("")
    columns = max(CELLS // len(shown), 1)
    steps = sorted({point.step for curve in shown for point in curve.points})
    steps = steps[:: math.ceil(len(steps) / columns)]
    rows = [row(_label(curve), _cells(curve, steps)) for curve in shown]
    ends = [
        element("text", str(steps[0]), x=0, y=14), element("text", str(steps[-1]), x="100%", y=14, text_anchor="end")
    ]  # fmt: skip
    return element("div", *rows, row("step", picture(20, "", *ends)), class_="plot grid")


def _cells(curve: Curve, steps: Sequence[int]) -> Markup:
    by_step = {point.step: point for point in curve.points}
    wide = percent(1, len(steps))
    marks = [
        element(
            "rect", element("title", _told(curve, point)), x=percent(at, len(steps)), y=0, width=wide, height=14,
            class_="bad" if point.bad else f"g{_shade(curve, point)}",
        )
        for at, step in enumerate(steps)
        if (point := by_step.get(step))
    ]  # fmt: skip
    bad = sum(point.bad for point in curve.points)
    return picture(
        14, f"{_label(curve)}: bad at {bad} of {phrases.plural(len(curve.points), 'step')}", *marks
    )


def _shade(curve: Curve, point: Point) -> int:
    """By the powers of two that are left below the limit: 0 for more than half of the format's, 4 for fewer than 1."""
    left = math.log2(curve.limit / point.largest) if point.largest > 0 else math.inf
    whole = max(math.log2(curve.limit), 1.0)
    return next(
        (shade for shade, share in enumerate((0.75, 0.5, 0.25, 0.1)) if left > share * whole), SHADES - 1
    )


def _told(curve: Curve, point: Point) -> str:
    return (
        f"step {point.step}: largest {point.largest:.4g} ({literal(point.largest_of)}), "
        f"{point.zeros:.1%} zeros{', bad' if point.bad else ''}; limit {curve.limit:.4g}"
    )


def chart(curve: Curve) -> Markup:
    """The largest magnitude by step, logarithmic, with the limit that it must not cross."""
    known = [(at, point) for at, point in enumerate(curve.points) if point.largest > 0]
    logs = [math.log2(point.largest) for _, point in known] + [math.log2(curve.limit)]
    low, high = min(logs), max(logs)

    def at(value: float) -> str:
        return f"{12 + 66 * (high - math.log2(value)) / ((high - low) or 1):.4g}"

    places = [(percent(number + 0.5, len(curve.points)), at(point.largest), point) for number, point in known]
    joints = [
        element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="joint")
        for (x1, y1, _), (x2, y2, _) in itertools.pairwise(places)
    ]
    dots = [
        element(
            "circle",
            element("title", _told(curve, point)),
            cx=x,
            cy=y,
            r=3,
            class_="bad" if point.bad else "dot",
        )
        for x, y, point in places
    ]
    level = element("line", x1="0", x2="100%", y1=at(curve.limit), y2=at(curve.limit), class_="cliff")
    name = element("text", f"{curve.limit:.4g}", x=4, y=float(at(curve.limit)) + 12, class_="cliff-name")
    first, last = curve.points[0], curve.points[-1]
    words = f"largest magnitude of {_label(curve)}: {first.largest:.3g} at first, {last.largest:.3g} at last"
    return element("div", row(_label(curve), picture(90, words, level, name, *joints, *dots)), class_="plot")
