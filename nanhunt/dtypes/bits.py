"""Floats as integers: with its sign shifted out, a float's bits are ordered like its magnitude.

NumPy compares float16 one by one and knows no bfloat16 or float8, but takes the extremes of integers at memory
speed. So stored values of every format are judged by their bits, against limits found once and exactly.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from nanhunt.dtypes.convert import Array, native, to_floats
from nanhunt.dtypes.formats import FORMATS


@dataclass(frozen=True)
class Layout:
    """Where one format's bits lie; a magnitude is the bits without the sign."""

    dtype: str
    carrier: np.dtype[Any]
    """The unsigned integer of the same width."""
    sign: int
    smallest_normal: int
    largest: int
    """Magnitude of the largest finite number; those above are infinity and NaN."""
    has_infinity: bool
    """Where there is none, the first magnitude above the largest is NaN."""

    @property
    def infinity(self) -> int:
        """Magnitude of infinity, where there is one."""
        return self.largest + 1

    def bits(self, block: Array) -> Array:
        """Stored values as unsigned integers of this machine's byte order."""
        return native(block).view(self.carrier)

    def value(self, signed: int) -> float:
        """The number of a magnitude, or minus the number of minus a magnitude; 0 is 0.0."""
        carried = np.array([abs(signed)], self.carrier)
        stored = carried.view(self.dtype) if FORMATS[self.dtype].in_numpy else carried
        size = float(to_floats(stored, self.dtype)[0])
        return -size if signed < 0 else size


@cache
def layout(dtype: str) -> Layout:
    """The layout of a stored format (IEEE 754; OCP 8-bit floating point, 2023)."""
    form = FORMATS[dtype]
    sign, smallest_normal = 1 << (form.bits - 1), 1 << form.mantissa_bits
    largest = sign - smallest_normal - 1 if form.has_infinity else sign - 2
    return Layout(dtype, np.dtype(form.carrier), sign, smallest_normal, largest, form.has_infinity)


@dataclass(frozen=True)
class CastLimits:
    """What a cast does to finite values, by magnitude; the first magnitude is 1, since 0 stays 0."""

    layout: Layout
    flushed_below: int
    """Magnitudes from 1 up to this become 0."""
    subnormal_from: int
    """Magnitudes from this on ..."""
    subnormal_below: int
    """... and below this were not subnormal and become so."""
    overflow_from: int
    """Finite magnitudes from this on overflow (saturate, where there is no infinity)."""

    @property
    def near_zero_below(self) -> int:
        """Magnitudes from this on are normal before and after."""
        return max(self.layout.smallest_normal, self.flushed_below, self.subnormal_below)


@cache
def cast_limits(stored: str, dtype: str) -> CastLimits:
    """The limits of casting ``stored`` to ``dtype`` as PyTorch does; casting to itself changes nothing."""
    form, target = layout(stored), FORMATS[dtype]
    magnitudes = range(form.largest + 1)

    def before_rounding(magnitude: int) -> float:
        """The value as the last rounding sees it: PyTorch takes float64 to narrow formats by float32."""
        value = form.value(magnitude)
        if FORMATS[stored].bits < 64 or target.bits >= 32:
            return value
        with np.errstate(over="ignore"):
            return float(np.float32(value))

    # Halfway is a tie and rounds to even: to 0 at the bottom, to the smallest normal number below that.
    half_step = target.smallest_subnormal / 2
    flushed = bisect_right(magnitudes, half_step, key=before_rounding)
    normal = bisect_left(magnitudes, target.smallest_normal - half_step, key=before_rounding)
    # What saturates has no overflow to tie with: a value halfway beyond the largest number still rounds to it.
    find = bisect_left if target.has_infinity else bisect_right
    return CastLimits(
        form, flushed, max(flushed, form.smallest_normal), normal,
        find(magnitudes, target.overflow, key=before_rounding),
    )  # fmt: skip
