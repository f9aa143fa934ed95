"""Counts and extremes of stored values, and what a cast would lose of them, in one pass at memory speed.

Two maxima of the bits as integers, one signed and one unsigned, give both extremes and show whether anything is
infinite, NaN or too large. Whatever else is counted lies next to 0: one comparison finds the groups of values in
which something does, and only those are looked at closely.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.numerics.bits import CastLimits, Layout, cast_limits
from nanhunt.numerics.formats import Array

Positions = npt.NDArray[np.intp]

PART_BYTES = 1 << 19
"""Read at once: it stays in a core's cache, its magnitudes beside it, for all the passes over it."""
_GROUP = 8
"""Comparisons that are looked at together, as one 64-bit integer."""
_NOWHERE = np.zeros(0, np.intp)


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


@dataclass(frozen=True)
class Casting:
    """What a cast would do to finite values; adds up with ``+``."""

    overflow: int = 0
    zero: int = 0
    """Values that are not 0 and flush to it."""
    subnormal: int = 0
    """Values that are not subnormal and become so."""
    first: tuple[int, ...] = ()
    """The first flat positions that overflow or flush, ascending."""

    def __add__(self, other: Casting) -> Casting:
        """Over both ranges; the other one comes later."""
        return Casting(
            self.overflow + other.overflow, self.zero + other.zero, self.subnormal + other.subnormal,
            self.first + other.first,
        )  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """All that is known of a range of values; adds up with ``+``."""

    counts: Counts = Counts()
    casting: Casting = Casting()
    first_nonfinite: tuple[int, ...] = ()
    """The first flat positions of NaN and infinities, ascending."""

    def __add__(self, other: Measured) -> Measured:
        """Over both ranges; the other one comes later."""
        return Measured(
            self.counts + other.counts, self.casting + other.casting,
            self.first_nonfinite + other.first_nonfinite,
        )  # fmt: skip

    def keep(self, most: int) -> Measured:
        """The same with at most ``most`` first positions of either kind."""
        if max(len(self.first_nonfinite), len(self.casting.first)) <= most:
            return self
        casting = replace(self.casting, first=self.casting.first[:most])
        return Measured(self.counts, casting, self.first_nonfinite[:most])


def count(block: Array, dtype: str) -> Counts:
    """Counts over stored values of any shape."""
    return measure(block.reshape(-1), dtype, dtype).counts


def measure(flat: Array, stored: str, dtype: str, start: int = 0, most: int = 0) -> Measured:
    """Measures stored values (values,), the first of which has flat position ``start``, cast to ``dtype``.

    At most ``most`` first positions of either kind are kept.
    """
    limits = cast_limits(stored, dtype)
    bits = limits.layout.bits(flat)
    step = PART_BYTES // bits.itemsize
    meter = _Meter(limits, min(step, bits.size), most)
    for first in range(0, bits.size, step):
        meter.add(bits[first : first + step], start + first)
    return meter.measured()


class _Meter:
    """Adds parts up. Its buffers serve every part; magnitudes in them are doubled, see ``add``."""

    def __init__(self, limits: CastLimits, size: int, most: int) -> None:
        padded = -(-size // _GROUP) * _GROUP
        self._limits = limits
        self._layout = limits.layout
        self._magnitudes = np.empty(padded, limits.layout.carrier)
        self._is_near = np.empty(padded, np.bool_)
        self._most = most
        self._range: tuple[int, int] | None = None
        self._nan = self._posinf = self._neginf = self._zero = self._subnormal = 0
        self._overflow = self._flushed = self._made_subnormal = 0
        self._nonfinite: list[int] = []
        self._lost: list[int] = []

    def measured(self) -> Measured:
        """What the parts so far add up to."""
        counts = Counts(self._nan, self._posinf, self._neginf, self._zero, self._subnormal)
        if self._range is not None:
            low, high = (self._layout.value(each) for each in self._range)
            counts = replace(counts, min=low, max=high)
        casting = Casting(self._overflow, self._flushed, self._made_subnormal, tuple(self._lost))
        return Measured(counts, casting, tuple(self._nonfinite))

    def add(self, bits: Array, start: int) -> None:
        """One part, at most of the size the buffers were made for."""
        padded = self._magnitudes[: -(-bits.size // _GROUP) * _GROUP]
        magnitudes = padded[: bits.size]
        np.add(bits, bits, out=magnitudes)  # the sign falls out at the top; faster than a shift
        padded[bits.size :] = np.iinfo(bits.dtype).max  # above every limit
        low, high = _extremes(bits, self._layout)
        largest = max(-low, high)
        if largest > self._layout.largest:
            self._add_nonfinite(bits, magnitudes, start)
        else:
            self._widen(low, high)
        lost = self._add_near_zero(padded)
        if largest >= self._limits.overflow_from:
            lost = np.concatenate((lost, self._add_overflow(magnitudes)))
        if lost.size:
            self._lost += (np.sort(lost)[: self._most - len(self._lost)] + start).tolist()

    def _widen(self, low: int, high: int) -> None:
        known = self._range or (low, high)
        self._range = min(low, known[0]), max(high, known[1])

    def _doubled(self, magnitude: int) -> Any:
        return self._layout.carrier.type(2 * magnitude)

    def _add_nonfinite(self, bits: Array, magnitudes: Array, start: int) -> None:
        form = self._layout
        hit = magnitudes > self._doubled(form.largest)
        some, infinity = bits[hit], form.largest + 1
        if form.has_infinity:
            posinf = int(np.count_nonzero(some == form.carrier.type(infinity)))
            neginf = int(np.count_nonzero(some == form.carrier.type(infinity + form.sign)))
            self._posinf, self._neginf = self._posinf + posinf, self._neginf + neginf
            self._nan -= posinf + neginf
        self._nan += some.size
        if some.size < bits.size:
            self._widen(*_extremes(bits[~hit], form))
        if len(self._nonfinite) < self._most:
            self._nonfinite += (np.flatnonzero(hit)[: self._most - len(self._nonfinite)] + start).tolist()

    def _add_overflow(self, magnitudes: Array) -> Positions:
        """Positions in the part of what overflows, as many as may be wanted."""
        hit = magnitudes >= self._doubled(self._limits.overflow_from)
        hit &= magnitudes <= self._doubled(self._layout.largest)
        self._overflow += int(np.count_nonzero(hit))
        return np.flatnonzero(hit) if len(self._lost) < self._most else _NOWHERE

    def _add_near_zero(self, padded: Array) -> Positions:
        """Zeros, subnormal numbers and what the cast makes of small ones; positions in the part that it flushes."""
        limits = self._limits
        is_near = np.less(padded, self._doubled(limits.near_zero_below), out=self._is_near[: padded.size])
        groups = np.flatnonzero(is_near.view(np.uint64) != 0)
        if not groups.size:
            return _NOWHERE
        few = groups.size < padded.size // (2 * _GROUP)
        near = padded.reshape(-1, _GROUP)[groups].reshape(-1) if few else padded

        def below(magnitude: int) -> int:
            return int(np.count_nonzero(near < self._doubled(magnitude)))

        zero = below(1)
        self._zero += zero
        self._subnormal += below(self._layout.smallest_normal) - zero
        flushed = below(limits.flushed_below) - zero
        self._flushed += flushed
        if limits.subnormal_from < limits.subnormal_below:
            self._made_subnormal += below(limits.subnormal_below) - below(limits.subnormal_from)
        if not flushed or len(self._lost) >= self._most:
            return _NOWHERE
        hit = np.flatnonzero((near > 0) & (near < self._doubled(limits.flushed_below)))
        return groups[hit // _GROUP] * _GROUP + hit % _GROUP if few else hit


def _extremes(bits: Array, form: Layout) -> tuple[int, int]:
    """The smallest and the largest value, as magnitudes with a sign.

    The largest signed integer is the largest positive value, the largest unsigned one the most negative.
    """
    signed = bits.view(f"i{bits.itemsize}")
    positive = int(signed.max())
    negative = int(bits.max()) - form.sign
    low = -negative if negative >= 0 else int(bits.min())
    high = positive if positive >= 0 else -(int(signed.min()) + form.sign)
    return low, high
