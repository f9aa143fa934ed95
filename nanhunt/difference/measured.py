"""What is known of the differences of two tensors: counts, extremes and positions that add up, block by block."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.formats import FORMATS, FloatFormat

KINDS = ("finite", "NaN", "+inf", "-inf")
MAX_ULP = 4.0
"""Steps of the format that are rounding. Two kernels that add up in float32 and round once are a step apart; through a
layer norm or a residual after them, two to four."""
SINGLE_STEPS = 64.0
"""For formats that PyTorch also adds up in (float32, float64), at the mean magnitude: the error of a sum of n terms
grows like sqrt(n) (Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis", 2019); here n = 4096."""
LEAST_EXPONENT = -1022
"""That of ``math.frexp`` up to which all distances are counted together: those that are subnormal in float64."""
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]
"""float32 or float64."""


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

    @property
    def elementwise(self) -> bool:
        """Whether rtol or atol is asked for."""
        return self.rtol is not None or self.atol is not None

    def allowed(self, a: Floats) -> Floats:
        """|a - b| at most, for every value of A."""
        return np.asarray((self.atol or 0.0) + (self.rtol or 0.0) * np.abs(a))


@dataclass(frozen=True)
class Largest:
    """A largest number in float64, the first flat position where it is, and the two values there."""

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
        if not (self.first and other.first):
            return Places(self.count + other.count, self.first or other.first)
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
    """Values that no elementwise tolerance allows, by exponent: 2**(e - 1) <= |a - b| < 2**e, in float32 rounded."""
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
        floor = -math.inf
        if tolerance.form and tolerance.mean_steps and self.sums.mean_magnitude:
            step = float(steps_at(np.array([self.sums.mean_magnitude]), tolerance.form)[0])
            floor = max(math.frexp(tolerance.mean_steps * step)[1], LEAST_EXPONENT)
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


def steps_at(magnitudes: Doubles, form: FloatFormat) -> Doubles:
    """The distance to the next larger number of the format (ULP) at every magnitude, also beyond its largest."""
    powers = powers_of_two(magnitudes, np.empty_like(magnitudes))
    return np.asarray(np.maximum(powers, form.smallest_normal) * 2.0**-form.mantissa_bits)


def powers_of_two(magnitudes: Floats, out: Floats) -> Floats:
    """The power of two at or below every magnitude, shape (n,); 0 for subnormal numbers."""
    kind, exponent = (np.uint32, 0x7F800000) if out.itemsize == 4 else (np.uint64, 0x7FF0000000000000)
    np.bitwise_and(magnitudes.view(kind), kind(exponent), out=out.view(kind))
    return out
