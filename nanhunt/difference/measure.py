"""Stored values of two tensors against each other, chunk by chunk.

Pure NumPy. What is equal bit for bit costs one comparison. The rest goes through buffers that are used again: a
temporary of 256 KiB is fresh memory for every operation, and its pages cost more than the arithmetic.

Formats of up to 32 bits are subtracted in float32. Two numbers within a factor of two of each other have an exact
difference (Sterbenz, "Floating-Point Computation", 1974); any other is rounded by 2**-24 of itself, and is far beyond
what could pass for rounding. All else is done in float64, and sums always are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.difference.measured import (
    KINDS,
    Doubles,
    Floats,
    Largest,
    Measured,
    Places,
    Sums,
    Tolerance,
    powers_of_two,
    steps_at,
)
from nanhunt.dtypes.convert import Array, to_floats
from nanhunt.dtypes.formats import FORMATS, FloatFormat

Indices = npt.NDArray[np.intp]
CHUNK = 1 << 16
"""Values measured at once."""
FEW = 8
"""Where at most one value in that many differs, those are taken out of the chunk."""
ROUNDED = 2.0**-22
"""By what a quotient in float32 may be off, relative to itself: two roundings of 2**-24 each, with room."""
DOUBLE_BIAS = 1022
"""The exponent's field of a float64 less this is the exponent of ``math.frexp``."""
FIELDS = 2 + 2047
"""0 for nothing, and 1 + each exponent's field of a float64."""


def measure(
    a: Array, b: Array, dtypes: tuple[str, str], start: int, tolerance: Tolerance, most: int
) -> Measured:
    """Two blocks of values, shape (n,) each, as stored in the two dtypes; ``start`` is their flat position."""
    work = _format_of_work(dtypes, tolerance)
    chunks = _Chunks(tolerance, Measured(most), _ByExponent(most))
    for first in range(0, a.size, CHUNK):
        some, other = a[first : first + CHUNK], b[first : first + CHUNK]
        at = start + first
        if dtypes[0] == dtypes[1] and np.array_equal(_bits(some), _bits(other)):
            chunks.found += Measured(most, some.size, equal=((at, at + some.size),))
        else:
            chunks.add(_numbers(some, dtypes[0], work), _numbers(other, dtypes[1], work), at)
    return replace(chunks.found, outside=chunks.outside.found())


def sums_of_equal(values: Array, dtype: str) -> Sums:
    """What ``measure`` left out for values that are the same in both, shape (n,)."""
    total, buffers = Sums(), _Buffers()
    for first in range(0, values.size, CHUNK):
        doubles = to_doubles(values[first : first + CHUNK], dtype)
        finite = doubles if np.isfinite(doubles).all() else doubles[np.isfinite(doubles)]
        total += _sums(finite, finite, buffers)
    return total


def to_doubles(block: Array, dtype: str) -> Doubles:
    """Stored values as float64; of the widest integers the nearest."""
    return (to_floats(block, dtype) if dtype in FORMATS else block).astype(np.float64)


def _bits(block: Array) -> Array:
    """As unsigned integers, in which NaN is equal to itself and -0 is not 0."""
    return block if block.dtype.kind in "biu" else block.view(f"u{block.dtype.itemsize}")


def _format_of_work(dtypes: tuple[str, str], tolerance: Tolerance) -> type[np.floating[Any]]:
    """float32 where it holds both dtypes, and where what it rounds is beyond the tolerance anyhow.

    A difference that it rounds is more than half the larger value: 2**(mantissa_bits - 1) steps or more.
    """
    form = tolerance.form
    if form is None or tolerance.elementwise:
        return np.float64
    narrow = all(FORMATS[dtype].bits <= 32 for dtype in dtypes)
    allowed = tolerance.max_ulp or 0.0
    exact = float(np.float32(allowed)) == allowed and allowed < 2.0 ** (form.mantissa_bits - 1)
    return np.float32 if narrow and exact else np.float64


def _numbers(block: Array, dtype: str, work: type[np.floating[Any]]) -> Floats:
    return to_doubles(block, dtype) if work is np.float64 else to_floats(block, dtype)


class _Buffers:
    """Arrays that every chunk uses anew; each holds what was last asked for under its name."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, np.dtype[Any]], Array] = {}

    def get(self, name: str, size: int, dtype: npt.DTypeLike) -> Array:
        """Shape (size,), of at most ``CHUNK`` values, with anything in it."""
        key = name, np.dtype(dtype)
        if key not in self._held:
            self._held[key] = np.empty(CHUNK, dtype)
        return self._held[key][:size]


@dataclass(frozen=True)
class _Part:
    """Finite values of a chunk and how far they are apart, shape (n,) each, of one dtype."""

    a: Floats
    b: Floats
    distance: Floats
    start: int
    """Flat position of the first value of the chunk."""
    where: Indices | None = None
    """Which values of the chunk; None: all."""

    def those(self, where: Indices) -> _Part:
        """The values at these indices."""
        chosen = where if self.where is None else self.where[where]
        return _Part(self.a[where], self.b[where], self.distance[where], self.start, chosen)

    def position(self, index: int) -> int:
        """The flat position of a value."""
        return self.start + (index if self.where is None else int(self.where[index]))

    def first(self, mask: npt.NDArray[np.bool_], most: int) -> tuple[int, ...]:
        """The positions of the first values that the mask has."""
        return tuple(map(self.position, np.flatnonzero(mask)[:most].tolist())) if most else ()

    def largest(
        self, values: Floats, measured: Callable[[Doubles, Doubles], Doubles], *, exact: bool
    ) -> Largest:
        """Where ``values`` are largest, or, unless they are ``exact``, what they are rounded from, in float64."""
        near = np.array([np.argmax(values)])
        if not exact:
            near = np.flatnonzero(values >= values[near] * values.dtype.type(1 - ROUNDED))
        a, b = (each[near].astype(np.float64) for each in (self.a, self.b))
        with np.errstate(over="ignore"):
            found = measured(a, b)
        at = int(np.argmax(found))
        return Largest(float(found[at]), self.position(int(near[at])), float(a[at]), float(b[at]))


@dataclass
class _Chunks:
    """Chunks of a block, one after the other, so that no more positions are looked up than are kept."""

    tolerance: Tolerance
    found: Measured
    """Of the chunks so far, without ``outside``."""
    outside: _ByExponent
    buffers: _Buffers = field(default_factory=_Buffers)

    def add(self, a: Floats, b: Floats, start: int) -> None:
        """Two chunks of one dtype, shape (n,) each, of which the first value is at the flat position."""
        distance = self._distance(a, b)
        if np.isfinite(distance.max()):  # max is NaN where there is one
            self.found += self._finite(a, b, distance, start)
        else:
            self.found += self._not_all_finite(a, b, start)

    def _distance(self, a: Floats, b: Floats) -> Floats:
        distance = self.buffers.get("distance", a.size, a.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(a, b, out=distance)
        return np.abs(distance, out=distance)

    def _not_all_finite(self, a: Floats, b: Floats, start: int) -> Measured:
        """With zeros for what is not finite, in float64: a difference may also be too large for float32."""
        finite = np.isfinite(a) & np.isfinite(b)
        kinds = _kinds(a, b, np.flatnonzero(~finite), start, self.found.most)
        a, b = (np.where(finite, each, 0.0).astype(np.float64) for each in (a, b))
        found = self._finite(a, b, self._distance(a, b), start)
        differing = found.differing
        for places in kinds.values():
            differing = differing.plus(places, found.most)
        sums = replace(found.sums, count=int(np.count_nonzero(finite)))
        return replace(found, differing=differing, kinds=kinds, sums=sums)

    def _finite(self, a: Floats, b: Floats, distance: Floats, start: int) -> Measured:
        unequal = np.greater(distance, 0, out=self.buffers.get("unequal", a.size, np.bool_))
        count = int(np.count_nonzero(unequal))
        found = Measured(self.found.most, a.size, sums=_sums(a, b, self.buffers))
        if count == 0:
            return found
        part = _Part(a, b, distance, start)
        first = part.first(unequal, self._wanted(self.found.differing))
        if count * FEW <= a.size:
            part = part.those(np.flatnonzero(unequal))
        return replace(found, differing=Places(count, first), **self._differences(part))

    def _wanted(self, known: Places) -> int:
        """How many more positions are kept."""
        return max(0, self.found.most - len(known.first))

    def _differences(self, part: _Part) -> dict[str, Any]:
        """Fields of ``Measured``; some of the values may be equal."""
        size, dtype = part.distance.size, part.distance.dtype
        larger, work = (self.buffers.get(name, size, dtype) for name in ("larger", "work"))
        np.maximum(np.abs(part.a, out=larger), np.abs(part.b, out=work), out=larger)
        np.maximum(larger, np.finfo(dtype).smallest_subnormal, out=larger)  # for a pair of zeros
        ratio = np.divide(part.distance, larger, out=work)
        top = float(ratio.max())
        if top == np.inf:  # too far apart for float64, and so by a factor of 1 to 2
            np.minimum(ratio, 2.0, out=ratio)
        double = dtype == np.float64
        exact = double or top <= 0.5  # by Sterbenz
        found: dict[str, Any] = {
            "absolute": part.largest(part.distance, _absolute, exact=exact),
            "relative": part.largest(ratio, _relative, exact=double),
        }
        outside = np.greater(part.distance, 0, out=self.buffers.get("outside", size, np.bool_))
        form = self.tolerance.form
        if form is not None:
            # Not by the step itself, which is subnormal or 0 for small numbers.
            powers = np.maximum(powers_of_two(larger, larger), dtype.type(form.smallest_normal), out=larger)
            ulps = np.divide(part.distance, powers, out=work)
            found["ulp"] = part.largest(ulps, functools.partial(_steps, form), exact=exact)
            self._within_steps(ulps, form, outside)
        if self.tolerance.elementwise:
            outside &= part.distance > self.tolerance.allowed(part.a)
        self._count_outside(part, outside)
        return found

    def _within_steps(self, ulps: Floats, form: FloatFormat, outside: npt.NDArray[np.bool_]) -> None:
        """Takes those out; ``ulps`` are in units of 2**mantissa_bits."""
        if self.tolerance.max_ulp is not None:
            np.greater(ulps, ulps.dtype.type(self.tolerance.max_ulp * 2.0**-form.mantissa_bits), out=outside)

    def _count_outside(self, part: _Part, outside: npt.NDArray[np.bool_]) -> None:
        """The values outside, by the exponent of their distance."""
        count = int(np.count_nonzero(outside))
        if count == 0:
            return
        if count * FEW <= outside.size:
            part, outside = part.those(np.flatnonzero(outside)), outside[outside]
        bits = self.buffers.get("bits", outside.size, np.int64)
        np.copyto(bits.view(np.float64), part.distance)
        fields = np.right_shift(bits, 52, out=bits)
        fields += 1
        if count < outside.size:
            np.multiply(fields, outside, out=fields)
        self.outside.add(fields, part)


class _ByExponent:
    """Values by the exponent of their distance: how many, and the positions of the first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts = np.zeros(FIELDS, np.int64)
        self._lacking = np.ones(FIELDS, np.bool_)
        """Where there is still room for a position."""
        self._first: dict[int, tuple[int, ...]] = {}

    def add(self, fields: npt.NDArray[np.int64], part: _Part) -> None:
        """Values of a part, by 1 + the exponent's field of the distance in float64; 0 for those that do not count."""
        counts = np.bincount(fields, minlength=FIELDS)
        counts[0] = 0
        self._counts += counts
        for number in np.flatnonzero((counts > 0) & self._lacking).tolist():
            known = self._first.get(number, ())
            self._first[number] = known + part.first(fields == number, self._most - len(known))
            self._lacking[number] = len(self._first[number]) < self._most

    def found(self) -> dict[int, Places]:
        """By exponents as those of ``math.frexp``."""
        return {
            number - 1 - DOUBLE_BIAS: Places(int(self._counts[number]), self._first.get(number, ()))
            for number in np.flatnonzero(self._counts).tolist()
        }


def _absolute(a: Doubles, b: Doubles) -> Doubles:
    return np.abs(a - b)


def _relative(a: Doubles, b: Doubles) -> Doubles:
    return np.asarray(np.minimum(np.abs(a - b) / np.maximum(np.abs(a), np.abs(b)), 2.0))


def _steps(form: FloatFormat, a: Doubles, b: Doubles) -> Doubles:
    return np.asarray(np.abs(a - b) / steps_at(np.maximum(np.abs(a), np.abs(b)), form))


def _sums(a: Floats, b: Floats, buffers: _Buffers) -> Sums:
    one, other = (buffers.get(name, a.size, np.float64) for name in ("one", "other"))
    np.copyto(one, a)
    np.copyto(other, b)
    with np.errstate(over="ignore"):
        # Not a @ b: threads of a BLAS add up in an order of their own, and wait for each other in every chunk.
        products = [float(np.einsum("i,i", *pair)) for pair in ((one, other), (one, one), (other, other))]
        magnitudes = [float(np.abs(each, out=each).sum()) for each in (one, other)]
    return Sums(a.size, *products, *magnitudes)


def _kinds(a: Floats, b: Floats, where: Indices, start: int, most: int) -> dict[tuple[str, str], Places]:
    """What stands on the two sides of positions where at least one is not finite, and the other is of another kind."""
    codes = _kind(a[where]) * len(KINDS) + _kind(b[where])
    found = {}
    for code in np.flatnonzero(np.bincount(codes)):
        hit = where[codes == code]
        one, other = divmod(int(code), len(KINDS))
        if one != other:
            first = tuple(position + start for position in hit[:most].tolist())
            found[KINDS[one], KINDS[other]] = Places(hit.size, first)
    return found


def _kind(values: Floats) -> npt.NDArray[np.int64]:
    """Index in ``KINDS``."""
    codes = np.select([np.isnan(values), np.isposinf(values), np.isneginf(values)], [1, 2, 3], 0)
    return np.asarray(codes, np.int64)
