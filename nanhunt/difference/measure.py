"""Stored values of two tensors against each other, block by block: counts, extremes and positions that add up.

Pure NumPy. What is equal bit for bit costs one comparison; only the rest is converted, to float64, in which every
value of a narrower format and every difference of two of them is exact or nearly so.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.convert import Array, to_floats
from nanhunt.dtypes.formats import FORMATS, FloatFormat

CHUNK = 1 << 16
"""Values measured at once: all temporaries of a chunk stay in a core's cache."""
KINDS = ("finite", "NaN", "+inf", "-inf")
MAX_ULP = 4.0
"""Steps of the format that are rounding. Two kernels that add up in float32 and round once are a step apart; through a
layer norm or a residual after them, two to four."""
SINGLE_STEPS = 64.0
"""For formats that PyTorch also adds up in (float32, float64), at the mean magnitude: the error of a sum of n terms
grows like sqrt(n) (Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis", 2019); here n = 4096."""
EXPONENT_OF_INFINITY = 1100
"""Above that of every finite float64, as its negative is below that of every one."""
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tolerance:
    """What is no difference; a value is within it if one of the two says so."""

    form: FloatFormat | None
    """In whose steps (ULP) it is counted; None: no rounding, as between integers."""
    max_ulp: float | None
    rtol: float | None = None
    """With atol: |a - b| <= atol + rtol |a|, as in torch.testing.assert_close with A as ``expected``."""
    atol: float | None = None
    mean_steps: float = 0.0
    """A value is also within that many steps at the tensor's mean magnitude: the error of a sum is relative to its
    terms, so that values near zero may be off by many steps of their own."""


@dataclass(frozen=True)
class Largest:
    """A largest number, the first flat position where it is, and the two values there."""

    value: float = -1.0
    position: int = -1
    a: float = math.nan
    b: float = math.nan

    def __or__(self, other: Largest) -> Largest:
        """The larger; of equal ones the first."""
        return min(self, other, key=lambda one: (-one.value, one.position))


@dataclass(frozen=True)
class Places:
    """How many values, and the flat positions of the first."""

    count: int = 0
    first: tuple[int, ...] = ()

    def plus(self, other: Places, most: int) -> Places:
        """Both together."""
        return Places(self.count + other.count, tuple(sorted((*self.first, *other.first)))[:most])


NOWHERE = Places()


@dataclass(frozen=True)
class Sums:
    """Over values that are finite in both."""

    count: int = 0
    dot: float = 0.0
    squares_a: float = 0.0
    squares_b: float = 0.0
    magnitudes_a: float = 0.0
    magnitudes_b: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        """Of both parts."""
        return Sums(
            self.count + other.count,
            self.dot + other.dot,
            self.squares_a + other.squares_a,
            self.squares_b + other.squares_b,
            self.magnitudes_a + other.magnitudes_a,
            self.magnitudes_b + other.magnitudes_b,
        )

    @property
    def cosine(self) -> float | None:
        """Of the angle between them; None where a side is all zeros, or beyond what float64 can square."""
        length = math.sqrt(self.squares_a) * math.sqrt(self.squares_b)
        return max(-1.0, min(1.0, self.dot / length)) if 0 < length < math.inf else None

    @property
    def mean_magnitude(self) -> float:
        """Of the side with the smaller values, so that one outlier does not make room for itself."""
        return min(self.magnitudes_a, self.magnitudes_b) / max(self.count, 1)


@dataclass(frozen=True)
class Measured:
    """What is known of some values of a pair of tensors; parts add up in any order."""

    most: int
    """Positions kept of each kind."""
    values: int = 0
    equal: tuple[tuple[int, int], ...] = ()
    """Flat ranges (start, stop) that are equal bit for bit, whose sums were not needed yet."""
    differing: Places = NOWHERE
    kinds: Mapping[tuple[str, str], Places] = field(default_factory=dict)
    """By kind in A and kind in B, where they are not the same."""
    absolute: Largest = Largest()
    relative: Largest = Largest()
    ulp: Largest = Largest()
    outside: Mapping[int, Places] = field(default_factory=dict)
    """Values that no elementwise tolerance allows, by exponent: 2**(e - 1) <= |a - b| < 2**e."""
    sums: Sums = Sums()

    def __add__(self, other: Measured) -> Measured:
        """Both parts together."""
        most = self.most
        return Measured(
            most=most,
            values=self.values + other.values,
            equal=_joined((*self.equal, *other.equal)),
            differing=self.differing.plus(other.differing, most),
            kinds=_summed(self.kinds, other.kinds, most),
            absolute=self.absolute | other.absolute,
            relative=self.relative | other.relative,
            ulp=self.ulp | other.ulp,
            outside=_summed(self.outside, other.outside, most),
            sums=self.sums + other.sums,
        )

    @property
    def identical(self) -> bool:
        """Whether every bit is the same."""
        return sum(stop - start for start, stop in self.equal) == self.values

    @property
    def changed_kind(self) -> int:
        """Values of another kind on the other side."""
        return sum(places.count for places in self.kinds.values())

    @property
    def nonfinite_in_both(self) -> int:
        """Values of the same kind on both sides, and not finite; known once the sums are."""
        return self.values - self.sums.count - self.changed_kind

    def beyond(self, tolerance: Tolerance) -> Places:
        """Values that are outside of the tolerance, now that the mean magnitude of the tensor is known."""
        floor = -EXPONENT_OF_INFINITY  # every exponent is above it
        if tolerance.form and tolerance.mean_steps and self.sums.mean_magnitude:
            step = float(steps_at(np.array([self.sums.mean_magnitude]), tolerance.form)[0])
            floor = math.frexp(tolerance.mean_steps * step)[1]
        places = (each for exponent, each in self.outside.items() if exponent >= floor)
        return functools.reduce(lambda one, other: one.plus(other, self.most), places, Places())


def _joined(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same ranges, neighbours as one."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if found and found[-1][1] == start:
            start = found.pop()[0]  # noqa: PLW2901 - the range that ends here is one with this
        found.append((start, stop))
    return tuple(found)


def _summed(some: Mapping[Any, Places], more: Mapping[Any, Places], most: int) -> dict[Any, Places]:
    return {
        key: some.get(key, Places()).plus(more.get(key, Places()), most)
        for key in sorted({*some, *more}, key=str)
    }


def rounding(form: FloatFormat | None) -> Tolerance:
    """What the format itself explains."""
    steps = SINGLE_STEPS if form and form.bits >= 32 else MAX_ULP
    return Tolerance(form, MAX_ULP, mean_steps=steps)


def narrower(dtype_a: str, dtype_b: str) -> FloatFormat | None:
    """The format with fewer digits of two; None unless both are floats."""
    if dtype_a not in FORMATS or dtype_b not in FORMATS:
        return None
    return min(FORMATS[dtype_a], FORMATS[dtype_b], key=lambda form: (form.mantissa_bits, form.exponent_bits))


def measure(
    a: Array, b: Array, dtypes: tuple[str, str], start: int, tolerance: Tolerance, most: int
) -> Measured:
    """Two blocks of values, shape (n,) each, as stored in the two dtypes; ``start`` is their flat position."""
    found = Measured(most)
    for first in range(0, a.size, CHUNK):
        some, other = a[first : first + CHUNK], b[first : first + CHUNK]
        at = start + first
        if dtypes[0] == dtypes[1] and np.array_equal(_bits(some), _bits(other)):
            chunk = Measured(most, some.size, equal=((at, at + some.size),))
        else:
            chunk = _chunk(to_doubles(some, dtypes[0]), to_doubles(other, dtypes[1]), at, tolerance, most)
        found = found + chunk
    return found


def sums_of_equal(values: Array, dtype: str) -> Sums:
    """What ``measure`` left out for values that are the same in both, shape (n,)."""
    total = Sums()
    for first in range(0, values.size, CHUNK):
        doubles = to_doubles(values[first : first + CHUNK], dtype)
        finite = doubles[np.isfinite(doubles)]
        total += _sums(finite, finite)
    return total


def to_doubles(block: Array, dtype: str) -> Doubles:
    """Stored values as float64; of the widest integers the nearest."""
    return (to_floats(block, dtype) if dtype in FORMATS else block).astype(np.float64)


def steps_at(magnitudes: Doubles, form: FloatFormat) -> Doubles:
    """The distance to the next larger number of the format (ULP) at every magnitude, also beyond its largest."""
    powers = (magnitudes.view(np.uint64) & np.uint64(0x7FF0000000000000)).view(np.float64)
    return np.asarray(np.maximum(powers, form.smallest_normal) * 2.0**-form.mantissa_bits)


def _bits(block: Array) -> Array:
    """As unsigned integers, in which NaN is equal to itself and -0 is not 0."""
    return block if block.dtype.kind in "biu" else block.view(f"u{block.dtype.itemsize}")


def _chunk(a: Doubles, b: Doubles, start: int, tolerance: Tolerance, most: int) -> Measured:
    finite = np.isfinite(a) & np.isfinite(b)
    kinds: dict[tuple[str, str], Places] = {}
    if not finite.all():
        kinds = _kinds(a, b, np.flatnonzero(~finite), start, most)
        a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    where = np.flatnonzero(a != b)
    finite_places = Places(where.size, _places(where[:most], start))
    found = Measured(
        most,
        a.size,
        differing=functools.reduce(lambda some, more: some.plus(more, most), kinds.values(), finite_places),
        kinds=kinds,
        sums=replace(_sums(a, b), count=int(np.count_nonzero(finite))),
    )
    if where.size == 0:
        return found
    some, other = (a, b) if where.size == a.size else (a[where], b[where])
    return replace(found, **_differences(some, other, where + start, tolerance, most))


def _sums(a: Doubles, b: Doubles) -> Sums:
    with np.errstate(over="ignore"):
        # Not a @ b: threads of a BLAS add up in an order of their own, and wait for each other in every chunk.
        return Sums(
            a.size,
            float(np.einsum("i,i", a, b)),
            float(np.einsum("i,i", a, a)),
            float(np.einsum("i,i", b, b)),
            float(np.abs(a).sum()),
            float(np.abs(b).sum()),
        )


def _places(where: npt.NDArray[np.intp], start: int) -> tuple[int, ...]:
    return tuple(int(position) + start for position in where)


def _kinds(
    a: Doubles, b: Doubles, where: npt.NDArray[np.intp], start: int, most: int
) -> dict[tuple[str, str], Places]:
    """What stands on the two sides of positions where at least one is not finite, and the other is of another kind."""
    codes = _kind(a[where]) * len(KINDS) + _kind(b[where])
    found = {}
    for code in np.flatnonzero(np.bincount(codes)):
        hit = where[codes == code]
        one, other = divmod(int(code), len(KINDS))
        if one != other:
            found[KINDS[one], KINDS[other]] = Places(hit.size, _places(hit[:most], start))
    return found


def _kind(values: Doubles) -> npt.NDArray[np.int64]:
    """Index in ``KINDS``."""
    codes = np.select([np.isnan(values), np.isposinf(values), np.isneginf(values)], [1, 2, 3], 0)
    return np.asarray(codes, np.int64)


def _differences(
    a: Doubles, b: Doubles, positions: npt.NDArray[np.intp], tolerance: Tolerance, most: int
) -> dict[str, Any]:
    """Fields of ``Measured`` from finite values that differ, each at its flat position."""
    with np.errstate(over="ignore"):
        distance = np.abs(a - b)
    size_a = np.abs(a)
    larger = np.maximum(size_a, np.abs(b))
    found: dict[str, Any] = {
        "absolute": _largest(distance, a, b, positions),
        "relative": _largest(np.minimum(distance / larger, 2.0), a, b, positions),
    }
    outside = np.ones(a.shape, np.bool_)
    if tolerance.form is not None:
        ulps = distance / steps_at(larger, tolerance.form)
        found["ulp"] = _largest(ulps, a, b, positions)
        if tolerance.max_ulp is not None:
            outside &= ulps > tolerance.max_ulp
    if tolerance.rtol is not None or tolerance.atol is not None:
        outside &= distance > (tolerance.atol or 0.0) + (tolerance.rtol or 0.0) * size_a
    if outside.any():
        found["outside"] = _by_exponent(distance[outside], positions[outside], most)
    return found


def _largest(values: Doubles, a: Doubles, b: Doubles, positions: npt.NDArray[np.intp]) -> Largest:
    at = int(np.argmax(values))
    return Largest(float(values[at]), int(positions[at]), float(a[at]), float(b[at]))


def _by_exponent(distance: Doubles, positions: npt.NDArray[np.intp], most: int) -> dict[int, Places]:
    exponents = np.where(np.isinf(distance), EXPONENT_OF_INFINITY, np.frexp(distance)[1])
    counts = np.bincount(exponents + EXPONENT_OF_INFINITY)
    found = {}
    for exponent in np.flatnonzero(counts):
        hit = np.flatnonzero(exponents + EXPONENT_OF_INFINITY == exponent)[:most]
        found[int(exponent) - EXPONENT_OF_INFINITY] = Places(
            int(counts[exponent]), _places(positions[hit], 0)
        )
    return found
