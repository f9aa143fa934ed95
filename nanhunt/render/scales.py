"""The scales on which both pictures of a histogram, terminal and SVG, are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.render import phrases
from nanhunt.results.tensor import Histogram

MARGIN = 2
LEAST = 24
"""Powers of two shown at least, so that a single value is not blown up to the whole picture."""


def window(histogram: Histogram, dtypes: Sequence[str], role: str) -> range:
    """The powers of two worth drawing: all values, and the limits of the formats that lie near them."""
    occupied = [
        histogram.first_exponent + index
        for index, (one, two) in enumerate(zip(histogram.positive, histogram.negative, strict=True))
        if one or two
    ] or [0]
    first, last = min(occupied), max(occupied)
    near = [
        exponent
        for dtype in dtypes
        for exponent in _limits(dtype, role)
        if first - 12 <= exponent <= last + 12
    ]
    low, high = min([first, *near]) - MARGIN, max([last, *near]) + MARGIN
    missing = max(LEAST - (high - low + 1), 0)
    return range(low - missing // 2, high + 1 + missing - missing // 2)


def _limits(dtype: str, role: str) -> list[int]:
    found = FORMATS[dtype]
    limits = [math.frexp(found.max)[1] - 1, math.frexp(found.smallest_normal)[1] - 1]
    if role == "logits":
        exp = compute_format(dtype)
        limits += [math.frexp(exp.exp_limit)[1] - 1, math.frexp(-exp.exp_zero)[1] - 1]
    return limits


def total(histogram: Histogram, counts: Sequence[int], start: int, stop: int) -> int:
    """Values with 2**start <= |x| < 2**stop."""
    first = histogram.first_exponent
    return sum(counts[max(start - first, 0) : max(stop - first, 0)])


def value(exponent: int) -> float:
    """2**exponent, infinite where float64 ends: the picture's margin may lie beyond."""
    return math.inf if exponent > 1023 else math.ldexp(1.0, exponent)


def power(exponent: int) -> str:
    """1, 2, 4, ... 1024 while that is short, 2^20 beyond."""
    return str(2**exponent) if 0 <= exponent <= 10 else f"2^{exponent}"


def remark(histogram: Histogram) -> str:
    """What the bars do not show: sampling, zeros, non-finite values."""
    parts = []
    if histogram.counted < histogram.total:
        counted = f"{phrases.count(histogram.counted)} of {phrases.plural(histogram.total, 'value')}"
        parts.append(f"sampled: {counted}")
    if histogram.zero:
        parts.append(f"{phrases.plural(histogram.zero, 'zero')}")
    if histogram.nonfinite:
        parts.append(f"{phrases.count(histogram.nonfinite)} NaN or infinite")
    return "".join(f"; {part}" for part in parts)
