"""How it came, in pictures: a grid of steps by layers, and a curve for each that grows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from markupsafe import Markup

from nanhunt.literal import literal
from nanhunt.render import phrases
from nanhunt.render.growing import label
from nanhunt.render.svg import element, percent, picture, row
from nanhunt.results.runup import Curve, Point

CELLS = 6000
"""Of a grid at most; of more steps every second one, third one ... is shown."""
ROWS = 120
SHADES = 5
"""Classes g0 to g4 of the style sheet, from far below the limit to next to it."""


def grid(curves: Sequence[Curve]) -> Markup:
    """Steps from left to right, layers from top to bottom; the darker, the nearer to the limit; red is bad."""
    shown = curves[:ROWS]
    if not shown:
        return Markup("")
    columns = max(CELLS // len(shown), 1)
    steps = sorted({point.step for curve in shown for point in curve.points})
    steps = steps[:: math.ceil(len(steps) / columns)]
    rows = [row(label(curve), _cells(curve, steps)) for curve in shown]
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
    return picture(14, f"{label(curve)}: bad at {bad} of {phrases.plural(len(curve.points), 'step')}", *marks)


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
    words = f"largest magnitude of {label(curve)}: {first.largest:.3g} at first, {last.largest:.3g} at last"
    return element("div", row(label(curve), picture(90, words, level, name, *joints, *dots)), class_="plot")
