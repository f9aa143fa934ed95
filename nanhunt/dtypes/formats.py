"""Each float format, once: how its bits lie, what follows from that, and what other programs call it.

A format that is added to ``FORMATS`` is read, judged, cast to, drawn and offered by --dtype without another line.
Standard library only; a test derives every number again with torch and ml_dtypes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class FloatFormat:
    """One sign bit, an exponent and a mantissa, as in IEEE 754 and in OCP 8-bit floating point (2023).

    The exp limits are logits x, judged by exp(x) rounded to the format; they are measured, since where exp rounds
    to infinity or 0 depends on how exp is computed as much as on the format.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    exp_limit: float
    """Largest x whose exp is finite."""
    exp_normal: float
    """Smallest x whose exp is normal."""
    exp_zero: float
    """Smallest x whose exp is not 0."""
    spellings: tuple[str, ...]
    """What people type for it, to ask whether they meant it."""
    safetensors: str
    """What the header of a .safetensors calls it."""
    in_numpy: bool = False
    """Whether NumPy has it; the bits of the others are carried by unsigned integers."""
    has_arithmetic: bool = True
    """Whether PyTorch computes in it; float8 is only stored, and computed in float32."""
    has_infinity: bool = True
    """Formats without ("fn": finite, and NaN) saturate: a cast of what is too large gives the largest number."""

    @property
    def bits(self) -> int:
        """Width of one value."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bytes(self) -> int:
        """Width of one value."""
        return self.bits // 8

    @property
    def bias(self) -> int:
        """What is taken from a stored exponent."""
        return int(2 ** (self.exponent_bits - 1)) - 1

    @property
    def carrier(self) -> str:
        """NumPy's and torch's unsigned integer of the same width: "uint16"."""
        return f"uint{self.bits}"

    @property
    def compute(self) -> str:
        """The format that PyTorch computes in."""
        return self.name if self.has_arithmetic else "float32"

    @cached_property
    def unit_roundoff(self) -> float:
        """Half the distance from 1 to the next larger number."""
        return 2.0 ** -(self.mantissa_bits + 1)

    @cached_property
    def max(self) -> float:
        """The largest number."""
        if self.has_infinity:
            return (2 - 2 * self.unit_roundoff) * 2.0**self.bias
        # One exponent more, of which the last mantissa is NaN.
        return (2 - 4 * self.unit_roundoff) * 2.0 ** (self.bias + 1)

    @cached_property
    def overflow(self) -> float:
        """Smallest |x| that a cast turns into infinity; saturating formats take x itself to the largest number."""
        largest_power = 2.0 ** (self.bias if self.has_infinity else self.bias + 1)
        return self.max + self.unit_roundoff * largest_power  # half a step more, where ties go up

    @cached_property
    def smallest_normal(self) -> float:
        """The smallest number with all its mantissa bits."""
        return 2.0 ** (1 - self.bias)

    @cached_property
    def smallest_subnormal(self) -> float:
        """The smallest number above 0."""
        return 2.0 ** (1 - self.bias - self.mantissa_bits)

    @property
    def is_narrow(self) -> bool:
        """Whether all its numbers are normal in float32, so that only its own rounding makes them inf or 0."""
        return self.exponent_bits < 8


FORMATS = {
    item.name: item
    for item in (
        FloatFormat(
            "float64", 11, 52, 709.782712893384, -708.3964185322641, -745.1332191019411,
            ("fp64", "double"), "F64", in_numpy=True,
        ),
        FloatFormat(
            "float32", 8, 23, 88.72283172607422, -87.33654022216797, -103.97207641601562,
            ("fp32", "float"), "F32", in_numpy=True,
        ),
        FloatFormat("bfloat16", 8, 7, 88.5, -87.0, -92.5, ("bf16",), "BF16"),
        FloatFormat(
            "float16", 5, 10, 11.0859375, -9.703125, -17.328125, ("fp16", "half"), "F16", in_numpy=True
        ),
        FloatFormat(
            "float8_e4m3fn", 4, 3, 6.0, -4.0, -6.5, ("fp8", "e4m3"), "F8_E4M3",
            has_arithmetic=False, has_infinity=False,
        ),
        FloatFormat(
            "float8_e5m2", 5, 2, 10.0, -8.0, -10.0, ("e5m2",), "F8_E5M2", has_arithmetic=False,
        ),
    )
}  # fmt: skip
DTYPES = tuple(FORMATS)
"""The names of all formats, widest first."""
SPELLINGS = {spelling: item.name for item in FORMATS.values() for spelling in item.spellings}
"""What people type for a format."""


def compute_format(dtype: str) -> FloatFormat:
    """The format in which PyTorch runs a loss on logits stored as ``dtype``."""
    return FORMATS[FORMATS[dtype].compute]
