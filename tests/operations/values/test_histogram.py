"""Values by power of two, against math.frexp value by value."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from nanhunt.dtypes.convert import to_floats
from nanhunt.load.rows import Rows
from nanhunt.operations.values.histogram import MOST_VALUES, histogram


def as_counters(rows: Rows, dtype: str) -> tuple[Counter[int], Counter[int]]:
    """(positive, negative) counts by exponent, as the histogram has them."""
    drawn = histogram(rows, dtype)
    return tuple(
        Counter({drawn.first_exponent + index: number for index, number in enumerate(side) if number})
        for side in (drawn.positive, drawn.negative)
    )  # type: ignore[return-value]


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
)
def test_every_exponent_is_floor_log2(dtype: str) -> None:
    generator = np.random.default_rng(3)
    if dtype.startswith("float8"):
        block = generator.integers(0, 256, (20, 30)).astype(np.uint8)
    elif dtype == "bfloat16":
        block = generator.integers(0, 1 << 16, (20, 30)).astype(np.uint16)
    else:
        block = (generator.standard_normal((20, 30)) * 2.0 ** generator.integers(-14, 14, (20, 30))).astype(
            dtype
        )
    values = [float(value) for value in to_floats(block, dtype).reshape(-1)]
    nonzero = [value for value in values if math.isfinite(value) and value != 0]
    expected = (
        Counter(math.frexp(value)[1] - 1 for value in nonzero if value > 0),
        Counter(math.frexp(value)[1] - 1 for value in nonzero if value < 0),
    )
    assert as_counters(Rows(block, -1), dtype) == expected


def test_zero_and_nonfinite_are_counted_apart() -> None:
    drawn = histogram(Rows(np.array([[0.0, -0.0, math.nan], [math.inf, -math.inf, 1.5]]), -1), "float64")
    assert (drawn.zero, drawn.nonfinite, drawn.counted, drawn.total) == (2, 3, 6, 6)
    assert (drawn.first_exponent, drawn.positive, drawn.negative) == (0, (1,), (0,))


def test_powers_of_two_open_their_own_bin() -> None:
    drawn = histogram(Rows(np.array([[1.0, 2.0, 4.0, math.nextafter(4.0, 0.0)]]), -1), "float64")
    assert (drawn.first_exponent, drawn.positive) == (0, (1, 2, 1))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 4)])
def test_no_values_give_an_empty_histogram(shape: tuple[int, ...]) -> None:
    drawn = histogram(Rows(np.zeros(shape, np.float32), -1), "float32")
    assert (drawn.positive, drawn.zero, drawn.counted, drawn.total) == ((), 0, 0, 0)


@pytest.mark.parametrize("shape", [(1, 2 * MOST_VALUES), (2 * MOST_VALUES, 1), (5_000, 64), (3, 130_000)])
def test_a_sample_of_a_large_tensor_says_how_many_it_looked_at(shape: tuple[int, int]) -> None:
    drawn = histogram(Rows(np.ones(shape, np.float32), -1), "float32")
    assert drawn.total == math.prod(shape)
    assert 0 < drawn.counted <= MOST_VALUES
    assert drawn.positive == (drawn.counted,)
