"""Counts and extremes of stored values, and what a cast would lose of them, in one pass at memory speed.

Two maxima of the bits as integers, one signed and one unsigned, give both extremes and show whether anything is
infinite, NaN or too large. Whatever else is counted lies next to 0: one comparison finds it, and only that is
looked at closely.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.bits import CastLimits, Layout, cast_limits
from nanhunt.dtypes.convert import Array

Positions = npt.NDArray[np.intp]

PART_BYTES = 1 << 19
"""Read at once: it stays in a core's cache, its magnitudes beside it, for all the passes over it."""
_CROWDED = 8
"""Where more than one value in so many is near 0, taking all of them is cheaper than picking those."""
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
    bits: int | None = 0
    """Sum of the bits as 32-bit words, mod 2**32; adds up where ranges begin with a whole word. None: not asked for."""

    def __add__(self, other: Counts) -> Counts:
        """Counts over both ranges."""
        return Counts(
            self.nan + other.nan, self.posinf + other.posinf, self.neginf + other.neginf,
            self.zero + other.zero, self.subnormal + other.subnormal,
            min(self.min, other.min), max(self.max, other.max), _sum(self.bits, other.bits),
        )  # fmt: skip


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else (one + other) % 2**32


@dataclass(frozen=True)
class Casting:
    """What a cast would do to finite values; adds up with ``+``."""

    overflow: int = 0
    zero: int = 0
    """Values that are not 0 and flush to it."""
    subnormal: int = 0
    """Values that are not subnormal and become so."""
    first_overflow: tuple[int, ...] = ()
    """The first flat positions that overflow, ascending."""
    first_zero: tuple[int, ...] = ()
    """The first flat positions that flush to 0, ascending."""

    def __add__(self, other: Casting) -> Casting:
        """Over both ranges; the other one comes later."""
        return Casting(
            self.overflow + other.overflow, self.zero + other.zero, self.subnormal + other.subnormal,
            self.first_overflow + other.first_overflow, self.first_zero + other.first_zero,
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
        """The same with at most ``most`` first positions of each kind."""
        lost = self.casting
        if max(map(len, (self.first_nonfinite, lost.first_overflow, lost.first_zero))) <= most:
            return self
        casting = replace(lost, first_overflow=lost.first_overflow[:most], first_zero=lost.first_zero[:most])
        return Measured(self.counts, casting, self.first_nonfinite[:most])


def count(block: Array, dtype: str) -> Counts:
    """Counts over stored values of any shape."""
    return measure(block.reshape(-1), dtype, dtype, words=False).counts


def measure(
    flat: Array, stored: str, dtype: str, start: int = 0, most: int = 0, *, words: bool = True
) -> Measured:
    """Measures stored values (values,), the first of which has flat position ``start``, cast to ``dtype``.

    At most ``most`` first positions of each kind are kept. ``words``: whether the bits are added up, which takes a
    tenth of the time. Takes up to a few times the memory of ``flat``.
    """
    limits = cast_limits(stored, dtype)
    form = limits.layout
    bits = form.bits(flat)
    if not bits.size:
        return Measured()
    near = _NearZero(limits, bits.size, most)
    low, high, total = _scan(bits, form, near, words)
    largest = max(-low, high)
    counts, nonfinite, finite = Counts(), _NOWHERE, bits
    if largest > form.largest:
        counts, nonfinite, finite = _nonfinite(bits, form)
        low, high = _extremes(finite, form) if finite.size else (0, 0)
    if finite.size:
        counts = replace(counts, min=form.value(low), max=form.value(high))
    overflowing = _overflowing(bits, limits) if largest >= limits.overflow_from else _NOWHERE
    flushed = np.sort(np.concatenate((_NOWHERE, *near.flushed_at)))
    return Measured(
        replace(counts, zero=near.zero, subnormal=near.subnormal, bits=total if words else None),
        Casting(
            overflowing.size,
            near.flushed,
            near.made_subnormal,
            *(tuple((at[:most] + start).tolist()) for at in (np.sort(overflowing), flushed)),
        ),
        tuple((nonfinite[:most] + start).tolist()),
    )


def _scan(bits: Array, form: Layout, near: _NearZero, words: bool) -> tuple[int, int, int]:
    """The smallest and the largest value, magnitudes with a sign, and the sum of words if asked for; ``near`` sees all.

    There are few calls per part, each of them long: threads that hand the interpreter's lock to and fro more often
    than that wait for each other.
    """
    step = min(bits.size, PART_BYTES // bits.itemsize)
    doubled = np.empty(step, bits.dtype)
    low, high = _extremes(bits[:step], form)
    total = 0
    for first in range(0, bits.size, step):
        part = bits[first : first + step]
        total += _words(part) if words else 0
        magnitudes = np.add(part, part, out=doubled[: part.size])  # faster than a shift
        if int(np.maximum.reduce(magnitudes)) // 2 > min(-low, high):  # else it holds neither extreme
            lowest, highest = _extremes(part, form)
            low, high = min(low, lowest), max(high, highest)
        near.look(first, magnitudes)
    near.settle()
    return low, high, total % 2**32


def _words(part: Array) -> int:
    """The sum of bits as 32-bit words, mod 2**32: as fast as a maximum, which a checksum is not."""
    flat = np.ascontiguousarray(part).view(np.uint8)
    whole = flat.size // 4 * 4
    last = int.from_bytes(flat[whole:].tobytes(), sys.byteorder)
    return int(np.add.reduce(flat[:whole].view(np.uint32), dtype=np.uint32)) + last


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
    """What lies next to 0 in some values: counts by magnitude, and where the first are that the cast flushes.

    Most parts hold nothing smaller than what the cast makes subnormal, if that: then counting is enough.
    """

    def __init__(self, limits: CastLimits, size: int, most: int) -> None:
        def doubled(magnitude: int) -> Any:
            return limits.layout.carrier.type(2 * magnitude)

        self._zero_below = doubled(1)
        self._subnormal_below = doubled(limits.layout.smallest_normal)
        self._flushed_below = doubled(limits.flushed_below)
        self._lost_below = doubled(limits.subnormal_from)
        self._near_below = doubled(limits.near_zero_below)
        self._is_near = np.empty(size, np.bool_)
        self._compared = 0
        self._most = most
        self.zero = 0
        """Zeros of either sign."""
        self.subnormal = 0
        """Subnormal numbers as stored."""
        self.flushed = 0
        """Numbers that the cast makes 0."""
        self.made_subnormal = 0
        """Numbers that the cast makes subnormal and that were not."""
        self.flushed_at: list[Positions] = []
        """The first that the cast makes 0, ascending."""

    def look(self, first: int, doubled: Array) -> None:
        """Looks at values from position ``first`` on; in their bits, doubled, the sign has fallen out at the top."""
        smallest = np.minimum.reduce(doubled)
        if smallest >= self._near_below:
            return
        is_near = self._is_near[self._compared : self._compared + doubled.size]
        self._compared += doubled.size
        np.less(doubled, self._near_below, out=is_near)
        if smallest < self._lost_below:
            self._look_closely(first, doubled, is_near)

    def settle(self) -> None:
        """Ends the counting, which one call does for all parts."""
        self.made_subnormal += int(np.count_nonzero(self._is_near[: self._compared]))

    def _look_closely(self, first: int, doubled: Array, is_near: npt.NDArray[np.bool_]) -> None:
        crowded = np.count_nonzero(is_near) > doubled.size // _CROWDED
        where = None if crowded else np.flatnonzero(is_near)
        near = doubled if where is None else doubled[where]
        zero, subnormal, flushed, lost = (
            int(np.count_nonzero(near < below))
            for below in (self._zero_below, self._subnormal_below, self._flushed_below, self._lost_below)
        )
        self.zero += zero
        self.subnormal += subnormal - zero
        self.flushed += flushed - zero
        self.made_subnormal -= lost
        wanted = self._most - sum(found.size for found in self.flushed_at)
        if wanted > 0 and flushed > zero:
            found = np.flatnonzero((near >= self._zero_below) & (near < self._flushed_below))[:wanted]
            self.flushed_at.append(first + (found if where is None else where[found]))
