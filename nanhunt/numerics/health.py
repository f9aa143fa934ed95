"""Counts and extremes of stored values, and what a cast would lose of them, in one pass at memory speed.

Two maxima of the bits as integers, one signed and one unsigned, give both extremes and show whether anything is
infinite, NaN or too large. Whatever else is counted lies next to 0: one comparison finds the groups of values in
which something does, and only those are looked at closely.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    At most ``most`` first positions of either kind are kept. Takes up to a few times the memory of ``flat``.
    """
    limits = cast_limits(stored, dtype)
    form = limits.layout
    bits = form.bits(flat)
    if not bits.size:
        return Measured()
    low, high = _extremes(bits, form)
    largest = max(-low, high)
    counts, nonfinite, finite = Counts(), _NOWHERE, bits
    if largest > form.largest:
        counts, nonfinite, finite = _nonfinite(bits, form)
        low, high = _extremes(finite, form) if finite.size else (0, 0)
    if finite.size:
        counts = replace(counts, min=form.value(low), max=form.value(high))
    overflowing = _overflowing(bits, limits) if largest >= limits.overflow_from else _NOWHERE
    near = _NearZero(limits, most)
    near.search(bits)
    lost = np.sort(np.concatenate((overflowing, *near.flushed_at)))
    return Measured(
        replace(counts, zero=near.zero, subnormal=near.subnormal),
        Casting(overflowing.size, near.flushed, near.made_subnormal, tuple((lost[:most] + start).tolist())),
        tuple((nonfinite[:most] + start).tolist()),
    )


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


def _nonfinite(bits: Array, form: Layout) -> tuple[Counts, Positions, Array]:
    """Counts and positions of what is not finite, and the values that are."""
    hit = bits + bits > form.carrier.type(2 * form.largest)
    some, infinity = bits[hit], form.largest + 1
    posinf = neginf = 0
    if form.has_infinity:
        posinf = int(np.count_nonzero(some == form.carrier.type(infinity)))
        neginf = int(np.count_nonzero(some == form.carrier.type(infinity + form.sign)))
    return Counts(some.size - posinf - neginf, posinf, neginf), np.flatnonzero(hit), bits[~hit]


def _overflowing(bits: Array, limits: CastLimits) -> Positions:
    """Positions of finite values that the cast turns into infinity (or saturates)."""
    form = limits.layout
    doubled = bits + bits
    hit = doubled >= form.carrier.type(2 * limits.overflow_from)
    hit &= doubled <= form.carrier.type(2 * form.largest)
    return np.flatnonzero(hit)


class _NearZero:
    """What lies next to 0 in some values: counts by magnitude, and the first positions that the cast flushes.

    Read in parts that stay in cache. Groups of 8 with something near 0 are put by and looked at together, unless
    most of a part is near 0: few and long calls, since threads that hand the interpreter's lock to and fro more
    often than that wait for each other.
    """

    def __init__(self, limits: CastLimits, most: int) -> None:
        self._carrier = limits.layout.carrier
        self._limit = self._carrier.type(2 * limits.near_zero_below)
        marks = (
            1, limits.layout.smallest_normal, limits.flushed_below, limits.subnormal_from,
            max(limits.subnormal_from, limits.subnormal_below),
        )  # fmt: skip
        self._marks = [self._carrier.type(2 * mark) for mark in marks]
        self._below = [0] * len(marks)
        self._most = most
        self.flushed_at: list[Positions] = []
        """Not in order; the first ones are among them."""

    @property
    def zero(self) -> int:
        """Zeros of either sign."""
        return self._below[0]

    @property
    def subnormal(self) -> int:
        """Subnormal numbers as stored."""
        return self._below[1] - self._below[0]

    @property
    def flushed(self) -> int:
        """Numbers that the cast makes 0."""
        return self._below[2] - self._below[0]

    @property
    def made_subnormal(self) -> int:
        """Numbers that the cast makes subnormal and that were not."""
        return self._below[4] - self._below[3]

    def search(self, bits: Array) -> None:
        """Looks at all values (values,)."""
        step = PART_BYTES // bits.itemsize
        padded = -(-min(step, bits.size) // _GROUP) * _GROUP
        doubled, is_near = np.empty(padded, bits.dtype), np.empty(padded, np.bool_)
        grouped = doubled.reshape(-1, _GROUP)
        bases, found = [], []
        for first in range(0, bits.size, step):
            part = bits[first : first + step]
            np.add(part, part, out=doubled[: part.size])  # the sign falls out at the top; faster than a shift
            doubled[part.size :] = np.iinfo(bits.dtype).max  # above every limit
            np.less(doubled, self._limit, out=is_near)
            groups = np.flatnonzero(is_near.view(np.uint64) != 0)
            if groups.size > len(grouped) // 2:
                known = sum(positions.size for positions in self.flushed_at)
                self._look(grouped, first + np.arange(0, padded, _GROUP), self._most - known)
            elif groups.size:
                bases.append(first + groups * _GROUP)
                found.append(grouped[groups])
        if found:
            self._look(np.concatenate(found), np.concatenate(bases), self._most)

    def _look(self, near: Array, bases: Positions, most: int) -> None:
        """Doubled magnitudes in groups, and the position of the first of each group; ``most`` positions wanted."""
        below = [int(np.count_nonzero(near < mark)) for mark in self._marks]
        self._below = [known + more for known, more in zip(self._below, below, strict=True)]
        if most > 0 and below[2] > below[0]:
            group, lane = np.nonzero((near >= self._marks[0]) & (near < self._marks[2]))
            self.flushed_at.append((bases[group] + lane)[:most])
