"""Counts and extremes against plain NumPy over every bit pattern; one NaN never spoils the other figures."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from nanhunt.load.tensor import BITS
from nanhunt.numerics.health import Counts, count


def reference(values: np.ndarray, smallest_normal: float) -> Counts:
    """Straight NumPy, value by value where it is clearer."""
    finite = values[np.isfinite(values)]
    size = np.abs(finite)
    return Counts(
        int(np.isnan(values).sum()), int((values == math.inf).sum()), int((values == -math.inf).sum()),
        int((finite == 0).sum()), int(((size > 0) & (size < smallest_normal)).sum()),
        float(min(finite, default=math.inf)), float(max(finite, default=-math.inf)),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", *BITS])
def test_every_pattern(dtype: str) -> None:
    carrier = np.dtype(BITS.get(dtype, "uint16"))
    bits = np.arange(1 << 8 * carrier.itemsize, dtype=np.uint32).astype(carrier)
    kind = np.float16 if dtype == "float16" else getattr(ml_dtypes, dtype)
    with np.errstate(invalid="ignore"):  # signalling NaNs complain when they are widened
        values = bits.view(kind).astype(np.float64)
    block = bits.view(np.float16) if dtype == "float16" else bits
    assert count(block, dtype) == reference(values, float(ml_dtypes.finfo(kind).smallest_normal))


CASES = {
    "clean": [1.0, -2.0, 0.0, -0.0, 1e-40, 3.0],
    "nan": [math.nan, -2.0, 0.0, 1e-40, 7.0],
    "infinities": [math.inf, -math.inf, math.inf, 5.0],
    "nothing finite": [math.nan, math.inf],
    "minus infinity only": [-math.inf, -math.inf],
    "tiny": [1e-45, -1e-45, 2.0**-126, -(2.0**-126)],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_wide_formats(dtype: str, case: str) -> None:
    values = np.array(CASES[case], dtype=dtype)
    assert count(values, dtype) == reference(values, float(np.finfo(dtype).smallest_normal))


def test_two_ranges_add_up_to_both() -> None:
    values = np.array([math.nan, 1.0, -4.0, 0.0, math.inf, 2.0, 1e-42, -math.inf], dtype=np.float32)
    whole = count(values, "float32")
    for cut in range(len(values) + 1):
        assert count(values[:cut], "float32") + count(values[cut:], "float32") == whole


def test_nothing_has_no_extremes() -> None:
    assert count(np.zeros((0, 3), np.float32), "float32") == Counts()
