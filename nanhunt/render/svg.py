"""The pictures of the page, as inline SVG.

Horizontal positions are percentages and text is HTML beside them, so that every picture fills a desk's
screen and a phone's alike without its letters being scaled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.literal import literal
from nanhunt.render import phrases, scales
from nanhunt.render.steps import Series, Step
from nanhunt.results.tensor import Histogram, RowBin, TensorReport, WorstRow

UP, DOWN = 112, 84
"""Heights in pixels of the positive and negative half of the histogram."""
COLORS = 8
"""Classes k0 to k7 of the style sheet colour the causes."""


def element(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """<name attributes>children</name>, everything escaped; ``class_`` writes class, "_" in a name "-"."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for key, value in attributes.items()
    )
    inner = Markup("").join(children)
    return Markup(f"<{name}{pairs}>{inner}</{name}>" if children else f"<{name}{pairs}/>")


def percent(part: float, whole: float) -> str:
    """A length as a share of the picture's width."""
    return f"{100 * part / whole:.4g}%" if whole else "0%"


def picture(height: int, label: str, *children: Markup, **attributes: object) -> Markup:
    """As wide as there is room; hidden from screen readers without a label."""
    named = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    return element("svg", *children, width="100%", height=height, **named, **attributes)


def row(title: str, drawn: Markup, class_: str = "") -> Markup:
    """A picture with its title to the left, for a div of class "plot"."""
    return element("div", title, class_=f"label {class_}".strip()) + element("div", drawn)


# ---------------------------------------------------------------------------------------------- histogram


def histogram(found: Histogram, dtype: str, role: str) -> Markup:
    """Where the numbers live: counts by power of two, positive up and negative down, over every format."""
    view = scales.window(found, [dtype], role)
    positive, negative = (
        [scales.total(found, counts, exponent, exponent + 1) for exponent in view]
        for counts in (found.positive, found.negative)
    )
    top = max([*positive, *negative, 1])
    exp = compute_format(dtype) if role == "logits" else None
    rows = [
        row("positive", _half(positive, view, top, exp.exp_limit if exp else None, up=True)),
        row("negative", _half(negative, view, top, -exp.exp_zero if exp else None, up=False)),
        row("|x|", _axis(view)),
        *(row(name, _range(name, view, role), "judged" if name == dtype else "") for name in FORMATS),
    ]
    return element("div", *rows, class_="plot")


def _half(counts: Sequence[int], view: range, top: int, limit: float | None, up: bool) -> Markup:
    height = UP if up else DOWN
    bars = [
        _bar(count, exponent, index, len(view), top, height, limit, up)
        for index, (exponent, count) in enumerate(zip(view, counts, strict=True))
        if count
    ]
    words = f"{'positive' if up else 'negative'} values: " + _spread(counts, view)
    floor = element("line", x1=0, x2="100%", y1=height, y2=height, class_="floor")
    return picture(height, words, *bars, *([floor] if up else []), *_cliff(limit, view, height, up))


def _bar(
    count: int, exponent: int, index: int, bins: int, top: int, height: int, limit: float | None, up: bool
) -> Markup:
    # Logarithmic, and never below two pixels: one value among millions must show.
    tall = max(round((height - 20) * math.log1p(count) / math.log1p(top), 1), 2)
    beyond = limit is not None and scales.value(exponent) > limit
    title = (
        f"{phrases.count(count)} values with {scales.power(exponent)} ≤ |x| < {scales.power(exponent + 1)}"
    )
    return element(
        "rect",
        element("title", title),
        x=percent(index + 0.06, bins),
        width=percent(0.88, bins),
        y=height - tall if up else 0,
        height=tall,
        class_="over" if beyond else "bar",
    )


def _spread(counts: Sequence[int], view: range) -> str:
    held = [exponent for exponent, count in zip(view, counts, strict=True) if count]
    if not held:
        return "none"
    return f"{phrases.count(sum(counts))}, from {scales.power(held[0])} to {scales.power(held[-1] + 1)}"


def _cliff(limit: float | None, view: range, height: int, up: bool) -> list[Markup]:
    """The line beyond which exp is infinite (above) or 0 (below)."""
    if limit is None or not view.start <= math.log2(limit) <= view.stop:
        return []
    x = percent(math.log2(limit) - view.start, len(view))
    line = element("line", x1=x, x2=x, y1=0, y2=height, class_="cliff")
    # At the left of its line, where there is room: a limit lies near the right edge.
    words = f"exp(x) is inf above {limit:.4g}" if up else f"exp(x) is 0 below -{limit:.4g}"
    text = element(
        "text", words, x=x, dx=-6, y=12 if up else height - 6, text_anchor="end", class_="cliff-name"
    )
    return [line, text]


def _axis(view: range) -> Markup:
    every = max(math.ceil(len(view) / 14), 1)
    marks = []
    for index, exponent in enumerate(view):
        if exponent % every == 0 and 0 < index < len(view) - 1:
            x = percent(index, len(view))
            minor = "minor" if exponent % (2 * every) else ""
            marks.append(element("line", x1=x, x2=x, y1=0, y2=4, class_="tick"))
            marks.append(
                element("text", scales.power(exponent), x=x, y=17, text_anchor="middle", class_=minor)
            )
    return picture(22, "", *marks)


def _range(name: str, view: range, role: str) -> Markup:
    """A bar over what the format holds, thin where it is subnormal, cut where its exp ends."""
    found = FORMATS[name]
    low, normal, high = (math.log2(x) for x in (found.smallest_subnormal, found.smallest_normal, found.max))
    pieces = [_piece(low, normal, view, 8, 4, "subnormal"), _piece(normal, high, view, 5, 10, "normal")]
    if role == "logits":
        exp = compute_format(name)
        pieces.append(_piece(math.log2(exp.exp_limit), high, view, 5, 10, "beyond"))
        pieces += _mark(math.log2(exp.exp_limit), view, "M-4,1 h8 l-4,5 z", "exp-limit")
        pieces += _mark(math.log2(-exp.exp_zero), view, "M-4,19 h8 l-4,-5 z", "zero-cliff")
    return picture(20, "", *pieces)


def _piece(start: float, stop: float, view: range, y: int, height: int, class_: str) -> Markup:
    left, right = max(start, view.start), min(stop, view.stop)
    if right <= left:
        return Markup("")
    x, width = percent(left - view.start, len(view)), percent(right - left, len(view))
    return element("rect", x=x, width=width, y=y, height=height, class_=class_)


def _mark(at: float, view: range, path: str, class_: str) -> list[Markup]:
    if not view.start <= at <= view.stop:
        return []
    shape = element("path", d=path, class_=class_)
    return [element("svg", shape, x=percent(at - view.start, len(view)), overflow="visible")]


# ---------------------------------------------------------------------------------------------- strip


@dataclass(frozen=True)
class Strip:
    """The picture of all rows, and what its colours mean."""

    picture: Markup
    legend: tuple[tuple[Markup, str], ...]
    """(swatch, "exp-overflow (NH101), 471 rows")."""
    details: tuple[str, ...]
    """One line per bin, as shown on hover and focus."""


def strip(bins: Sequence[RowBin], tensor: TensorReport) -> Strip:
    """All rows from left to right, coloured by cause; any bad row in a bin shows."""
    totals = _totals(bins)
    colors = {code: f"k{index % COLORS}" for index, code in enumerate(totals)}
    names = {finding.code: f"{finding.name} ({finding.code})" for finding in tensor.findings}
    details = [_detail(item, tensor, names) for item in bins]
    rows = max(bins[-1].last + 1 - bins[0].first, 1)
    marks = [mark for item in bins for mark in _segments(item, bins[0].first, rows, colors)]
    hits = [
        element(
            "rect",
            element("title", text),
            x=percent(item.first - bins[0].first, rows),
            width=percent(item.last + 1 - item.first, rows),
            height="100%",
            class_="hit",
        )
        for item, text in zip(bins, details, strict=True)
    ]
    legend = [
        (_swatch(colors[code]), f"{names.get(code, code)}, {phrases.plural(number, 'row')}")
        for code, number in totals.items()
    ]
    well = element("rect", width="100%", height="100%", class_="well")
    drawn = picture(48, "", well, *marks, *hits)
    healthy = (_swatch("well"), f"healthy, {phrases.plural(rows - sum(totals.values()), 'row')}")
    return Strip(drawn, (*legend, healthy), tuple(details))


def _totals(bins: Iterable[RowBin]) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in bins:
        for code, number in item.causes:
            found[code] = found.get(code, 0) + number
    return dict(sorted(found.items()))


def _segments(item: RowBin, first: int, rows: int, colors: dict[str, str]) -> Iterable[Markup]:
    """A bin's causes stacked from the bottom, each tall enough to be seen."""
    bottom = 48.0
    for code, number in item.causes:
        tall = min(max(48 * number / (item.last + 1 - item.first), 14), bottom)
        bottom -= tall
        yield element(
            "rect",
            x=percent(item.first - first, rows),
            width=percent(item.last + 1 - item.first, rows),
            y=f"{bottom:.4g}",
            height=f"{tall:.4g}",
            class_=colors[code],
        )


def _swatch(class_: str) -> Markup:
    square = element("rect", width=12, height=12, rx=2, class_=class_)
    return element("svg", square, width=12, height=12, aria_hidden="true", class_="swatch")


def _detail(item: RowBin, tensor: TensorReport, names: dict[str, str]) -> str:
    first, last = phrases.row_name(tensor, item.first), phrases.row_name(tensor, item.last)
    where = f"row {first}" if item.first == item.last else f"rows {first} to {last}"
    what = ", ".join(f"{phrases.count(number)} {names.get(code, code)}" for code, number in item.causes)
    largest = "" if item.max is None else f"; largest logit {phrases.number(item.max)}"
    close = "".join(_close(row, tensor) for row in tensor.worst_rows if item.first <= row.row <= item.last)
    return f"{where}: {what or 'healthy'}{largest}{close}"


def _close(row: WorstRow, tensor: TensorReport) -> str:
    label = "" if row.label is None else f", label {row.label}"
    losses = ", ".join(f"{view.name} {phrases.number(view.loss)}" for view in row.views)
    return f"; row {phrases.row_name(tensor, row.row)}{label}, loss: {losses}"


# ---------------------------------------------------------------------------------------------- worst rows


def share(value: float) -> Markup:
    """A probability as a bar in its table cell."""
    filled = [element("rect", width=percent(min(max(value, 0), 1), 1), height=4, class_="bar")]
    return picture(4, "", *(filled if math.isfinite(value) else []), class_="gauge")


def slope(value: float, row: WorstRow) -> Markup:
    """A gradient entry as a bar left or right of the middle, on the scale of the whole row."""
    finite = [abs(entry) for view in row.views for entry in view.gradient if math.isfinite(entry)]
    top = max(finite, default=0.0)
    if not math.isfinite(value) or not top:
        return picture(4, "", class_="gauge")
    wide = 50 * abs(value) / top
    x = 50 - wide if value < 0 else 50
    return picture(
        4, "", element("rect", x=f"{x:.4g}%", width=f"{wide:.4g}%", height=4, class_="bar"), class_="gauge"
    )


# ---------------------------------------------------------------------------------------------- steps


def steps(found: Series) -> Markup:
    """Largest logit, bad rows and headroom by step, the first bad step marked through all three."""
    rows = [
        row("largest logit", _line(found, "largest logit", lambda step: step.largest, found.limit)),
        row("bad rows", _columns(found)),
        row("headroom", _line(found, "headroom", lambda step: step.headroom, 0.0)),
        row("step", _names(found)),
    ]
    return element("div", *rows, class_="plot steps")


def _x(index: int, found: Series) -> str:
    return percent(index + 0.5, len(found.steps))


def _first_bad(found: Series, height: int) -> list[Markup]:
    if found.first_bad is None:
        return []
    x = _x(found.first_bad, found)
    return [element("line", x1=x, x2=x, y1=0, y2=height, class_="first-bad")]


def _line(found: Series, what: str, value: Callable[[Step], float | None], limit: float) -> Markup:
    """Points joined by lines, and the limit they must not cross."""
    known = [(index, y) for index, step in enumerate(found.steps) if (y := value(step)) is not None]
    ys = [y for _, y in known if math.isfinite(y)] + [limit]
    low, high = min(ys), max(ys)

    def at(y: float) -> str:
        return f"{12 + 66 * (high - y) / ((high - low) or 1):.4g}"

    points = [(_x(index, found), at(y), found.steps[index]) for index, y in known if math.isfinite(y)]
    joints = [
        element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="joint")
        for (x1, y1, _), (x2, y2, _) in itertools.pairwise(points)
    ]
    dots = [
        element(
            "circle", element("title", told(step)), cx=x, cy=y, r=4, class_="bad" if step.bad_rows else "dot"
        )
        for x, y, step in points
    ]
    name = f"exp limit {limit:.4g}" if limit else "0"
    text = element("text", name, x=4, y=float(at(limit)) - 4, class_="cliff-name")
    level = element("line", x1="0", x2="100%", y1=at(limit), y2=at(limit), class_="cliff")
    words = f"{what} by step: " + ", ".join(
        f"{step.label} {phrases.number(value(step))}" for step in found.steps
    )
    return picture(90, words, *_first_bad(found, 90), level, text, *joints, *dots)


def _columns(found: Series) -> Markup:
    most = max(step.bad_rows for step in found.steps) or 1
    columns = [
        part
        for index, step in enumerate(found.steps)
        if step.bad_rows
        for part in _column(found, index, most)
    ]
    words = "bad rows by step: " + ", ".join(f"{step.label} {step.bad_rows}" for step in found.steps)
    base = element("line", x1="0", x2="100%", y1=60, y2=60, class_="tick")
    return picture(62, words, *_first_bad(found, 62), base, *columns)


def _column(found: Series, index: int, most: int) -> list[Markup]:
    """One step's bad rows, with their number where there is room for it."""
    step, steps = found.steps[index], len(found.steps)
    tall = max(round(40 * step.bad_rows / most, 1), 3)
    bar = element(
        "rect",
        element("title", told(step)),
        x=percent(index + 0.3, steps),
        width=percent(0.4, steps),
        y=60 - tall,
        height=tall,
        class_="over",
    )
    if steps > 12 and index != found.first_bad:
        return [bar]
    place = {"x": _x(index, found), "y": 56 - tall, "text_anchor": "middle", "class_": "over-name"}
    return [bar, element("text", phrases.count(step.bad_rows), **place)]


def _names(found: Series) -> Markup:
    every = max(math.ceil(len(found.steps) / 12), 1)
    marks = []
    for index, step in enumerate(found.steps):
        first = index == found.first_bad
        # The first bad step is always named, its neighbours then are not.
        crowded = found.first_bad is not None and 0 < abs(index - found.first_bad) < every
        if first or (index % every == 0 and not crowded):
            class_ = "first-bad-name" if first else "minor" if index % (2 * every) else ""
            label = step.label if len(step.label) <= 12 else f"{step.label[:11]}…"
            place = {"x": _x(index, found), "y": 14, "text_anchor": "middle", "class_": class_}
            marks.append(element("text", label, **place))
    return picture(20, "", *_first_bad(found, 3), *marks)


def told(step: Step) -> str:
    """E.g. "step-20.npz: largest logit 97.25, headroom -8.527, 471 bad rows"."""
    return (
        f"{literal(step.file)}: largest logit {phrases.number(step.largest)}, "
        f"headroom {phrases.number(step.headroom)}, {phrases.plural(step.bad_rows, 'bad row')}"
    )
