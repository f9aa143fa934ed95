"""Sums of floats that come out the same, to the last bit, however they are grouped and in whatever order."""

from __future__ import annotations

import math
from dataclasses import dataclass

_STEP = 1074
"""Every finite float64 is a whole multiple of 2**-1074, its smallest subnormal."""


@dataclass(frozen=True)
class Exact:
    """A sum of float64 that has not been rounded: blocks of rows may be added up as they come in."""

    units: int = 0
    """The sum of the finite ones, in multiples of 2**-1074."""
    nan: bool = False
    posinf: bool = False
    neginf: bool = False

    @classmethod
    def of(cls, value: float) -> Exact:
        """The sum of that number alone."""
        if math.isnan(value):
            return cls(nan=True)
        if math.isinf(value):
            return cls(posinf=value > 0, neginf=value < 0)
        numerator, denominator = value.as_integer_ratio()  # a power of two
        return cls(numerator << (_STEP + 1 - denominator.bit_length()))

    def __add__(self, other: Exact) -> Exact:
        """Associative and commutative, which float addition is not."""
        return Exact(
            self.units + other.units,
            self.nan or other.nan,
            self.posinf or other.posinf,
            self.neginf or other.neginf,
        )

    def __float__(self) -> float:
        """The float64 nearest to the sum: rounded once. inf - inf is NaN, as it is for floats."""
        if self.nan or (self.posinf and self.neginf):
            return math.nan
        if self.posinf or self.neginf:
            return math.inf if self.posinf else -math.inf
        try:
            return self.units / (1 << _STEP)  # Python rounds the quotient of two integers correctly
        except OverflowError:
            return math.inf if self.units > 0 else -math.inf
