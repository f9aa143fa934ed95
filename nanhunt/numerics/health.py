"""Counts and extremes of stored values, one NaN never spoiling the other figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nanhunt.floats import FORMATS
from nanhunt.numerics.formats import Array, to_floats


@dataclass(frozen=True)
class Counts:
    """Counts over a range of values; adds up with ``+``."""

    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    zero: int = 0
    subnormal: int = 0
    min: float = float("inf")
    """Over the finite values; inf when there is none."""
    max: float = float("-inf")

    def __add__(self, other: Counts) -> Counts:
        """Counts over both ranges."""
        return Counts(
            self.nan + other.nan, self.posinf + other.posinf, self.neginf + other.neginf,
            self.zero + other.zero, self.subnormal + other.subnormal,
            min(self.min, other.min), max(self.max, other.max),
        )  # fmt: skip


def count(block: Array, dtype: str) -> Counts:
    """Counts over stored values of any shape."""
    if block.size == 0:
        return Counts()
    values = to_floats(block, dtype)
    top, bottom = float(values.max()), float(values.min())
    size = np.abs(values)
    zero = int(values.size - np.count_nonzero(values))
    tiny = int(np.count_nonzero(size < FORMATS[dtype].smallest_normal)) - zero
    if np.isfinite(top) and np.isfinite(bottom):
        return Counts(zero=zero, subnormal=tiny, min=bottom, max=top)
    finite = values[np.isfinite(values)]
    return Counts(
        nan=int(np.count_nonzero(np.isnan(values))),
        posinf=int(np.count_nonzero(values == np.inf)),
        neginf=int(np.count_nonzero(values == -np.inf)),
        zero=zero,
        subnormal=tiny,
        min=float(finite.min(initial=np.inf)),
        max=float(finite.max(initial=-np.inf)),
    )
