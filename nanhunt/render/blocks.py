"""Where the numbers live, drawn in the terminal with block characters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nanhunt.dtypes.formats import FORMATS, FloatFormat, compute_format
from nanhunt.render import phrases, scales
from nanhunt.results.tensor import Histogram

LEVELS = " ▁▂▃▄▅▆▇█"
ASCII_LEVELS = " .:-=+*#@"
LABEL = 10
"""Columns left of the picture, for row titles and format names."""


def histogram(
    histogram: Histogram, dtypes: Sequence[str], role: str, width: int, ascii: bool = False
) -> list[str]:
    """Lines of at most ``width`` columns: counts by power of two, over the range of each of ``dtypes``.

    Bars are logarithmic in the count, so that one value among millions still shows.
    """
    view = scales.window(histogram, dtypes, role)
    columns = max(min(width - LABEL, len(view) * 2), 8)
    per_column = math.ceil(len(view) / columns)
    starts = view[::per_column]
    wide = max(columns // len(starts), 1)
    lines = [_title(histogram)]
    for name, counts in (("positive", histogram.positive), ("negative", histogram.negative)):
        if any(counts):
            sums = [scales.total(histogram, counts, start, start + per_column) for start in starts]
            lines.append(f"{name:<{LABEL}}" + "".join(level * wide for level in _levels(sums, ascii)))
    lines.append(f"{'|x|':<{LABEL}}" + _axis(starts, wide))
    for dtype in dtypes:
        lines += _format(dtype, role, starts, per_column, wide, ascii)
    return [line.rstrip() for line in lines]


def _title(histogram: Histogram) -> str:
    return f"Where the numbers live: |x| by power of two, bars logarithmic{scales.remark(histogram)}"


def _levels(counts: Sequence[int], ascii: bool) -> Iterable[str]:
    ramp = ASCII_LEVELS if ascii else LEVELS
    top = math.log1p(max(counts, default=0)) or 1.0
    for count in counts:
        # Rounded up: a single value is never drawn as nothing.
        yield ramp[math.ceil(math.log1p(count) / top * (len(ramp) - 1))]


def _axis(starts: Sequence[int], wide: int) -> str:
    """Powers of two under their columns, as many as fit with a blank between."""
    text = ""
    for index, exponent in enumerate(starts):
        column, label = index * wide, scales.power(exponent)
        if column >= len(text) + bool(text) and column + len(label) <= len(starts) * wide:
            text += " " * (column - len(text)) + label
    return text


def _format(dtype: str, role: str, starts: Sequence[int], step: int, wide: int, ascii: bool) -> list[str]:
    """What the format can hold, and, for logits, where its exp ends; then the limits in words."""
    found = FORMATS[dtype]
    limit = compute_format(dtype).exp_limit if role == "logits" else math.inf
    marks = ("=", "-", "|", "!") if ascii else ("━", "╌", "┃", "╍")
    bar = "".join(_column(found, limit, start, step, wide, marks) for start in starts)
    words = _limits(found, role, marks[2])
    return [f"{_short(dtype):<{LABEL}}{bar}", *(f"{'':<{LABEL}}{line}" for line in words)]


def _column(
    found: FloatFormat, limit: float, start: int, step: int, wide: int, marks: tuple[str, str, str, str]
) -> str:
    """One column of a format's bar: normal, subnormal, the exp limit, beyond it, or blank."""
    normal, subnormal, edge, beyond = marks
    low, high = scales.value(start), scales.value(start + step)
    if scales.value(start + step - 1) < found.smallest_subnormal or low > found.max:
        return " " * wide
    if low > limit:
        return beyond * wide
    if high > limit:
        return normal * (wide - 1) + edge
    return (subnormal if low < found.smallest_normal else normal) * wide


def _short(dtype: str) -> str:
    return dtype.removeprefix("float8_")


def _limits(found: FloatFormat, role: str, mark: str) -> list[str]:
    if role != "logits":
        return [f"max {phrases.number(found.max)}, smallest normal {phrases.number(found.smallest_normal)}"]
    exp = compute_format(found.name)
    return [f"{mark} exp(x) is inf above {exp.exp_limit:.4g}, 0 below {exp.exp_zero:.4g}"]
