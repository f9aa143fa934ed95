"""What each float format can hold, as plain numbers: the limits that verdicts and pictures quote.

Standard library only. A test derives every number again with torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FloatFormat:
    """The limits of one format; exp limits are logits x, judged by exp(x) rounded to the format."""

    name: str
    unit_roundoff: float
    """Half the distance from 1 to the next larger number."""
    max: float
    overflow: float
    """Smallest |x| that a cast turns into infinity (float8_e4m3fn: that saturates, since it has none)."""
    smallest_normal: float
    smallest_subnormal: float
    exp_limit: float
    """Largest x whose exp is finite."""
    exp_normal: float
    """Smallest x whose exp is normal."""
    exp_zero: float
    """Smallest x whose exp is not 0."""
    compute: str
    """The format PyTorch computes in: itself, or float32 for float8, which has no arithmetic."""


FORMATS = {
    item.name: item
    for item in (
        FloatFormat(
            "float64", 2.0**-53, (2 - 2.0**-52) * 2.0**1023, float("inf"), 2.0**-1022, 2.0**-1074,
            709.782712893384, -708.3964185322641, -745.1332191019411, "float64",
        ),
        FloatFormat(
            "float32", 2.0**-24, (2 - 2.0**-23) * 2.0**127, (2 - 2.0**-24) * 2.0**127, 2.0**-126, 2.0**-149,
            88.72283172607422, -87.33654022216797, -103.97207641601562, "float32",
        ),
        FloatFormat(
            "bfloat16", 2.0**-8, (2 - 2.0**-7) * 2.0**127, (2 - 2.0**-8) * 2.0**127, 2.0**-126, 2.0**-133,
            88.5, -87.0, -92.5, "bfloat16",
        ),
        FloatFormat(
            "float16", 2.0**-11, 65504.0, 65520.0, 2.0**-14, 2.0**-24,
            11.0859375, -9.703125, -17.328125, "float16",
        ),
        FloatFormat(
            "float8_e4m3fn", 2.0**-4, 448.0, 464.0, 2.0**-6, 2.0**-9, 6.0, -4.0, -6.5, "float32",
        ),
        FloatFormat(
            "float8_e5m2", 2.0**-3, 57344.0, 61440.0, 2.0**-14, 2.0**-16, 10.0, -8.0, -10.0, "float32",
        ),
    )
}  # fmt: skip


def compute_format(dtype: str) -> FloatFormat:
    """The format in which PyTorch runs a loss on logits stored as ``dtype``."""
    return FORMATS[FORMATS[dtype].compute]


DTYPES = tuple(FORMATS)
"""The names of all formats, widest first."""
SPELLINGS = {
    "fp64": "float64", "double": "float64", "fp32": "float32", "float": "float32", "fp16": "float16",
    "half": "float16", "bf16": "bfloat16", "fp8": "float8_e4m3fn", "e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2",
}  # fmt: skip
"""What people type for a format."""
