"""The sums that settle float16 rows, against float64: every bit pattern, any number of classes, every format."""

from __future__ import annotations

import numpy as np
import pytest

from nanhunt.dtypes.convert import to_floats
from nanhunt.operations.cross_entropy.exps import log_sum_exp
from nanhunt.operations.cross_entropy.extremes import Between, extremes


@pytest.mark.parametrize("seed", range(5))
def test_log_sum_exp_of_float16_is_good_to_a_ten_thousandth(seed: int) -> None:
    patterns = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16)
    usable = patterns[~np.isnan(patterns) & (patterns < 80)]  # every one that is not too large, -inf included
    block = np.random.default_rng(seed).permutation(usable)[:40_000].reshape(40, 1000)
    exact = block.astype(np.float64)
    top = exact.max(axis=-1)
    expected = np.log(np.exp(exact - top[:, None]).sum(axis=-1)) + top
    assert np.abs(log_sum_exp(block, "float16") - expected).max() < 1e-4


def test_rows_of_zeros_and_subnormal_numbers() -> None:
    block = np.array([[0.0, -0.0, 6e-8, -6e-5], [0.0, 0.0, -np.inf, -np.inf]], np.float16)
    assert log_sum_exp(block, "float16") == pytest.approx([np.log(4), np.log(2)], abs=1e-4)


@pytest.mark.parametrize("classes", [1, 3, 1000, 1024, 1025, 5000])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_any_number_of_classes_in_any_format(dtype: str, classes: int) -> None:
    x = np.random.default_rng(classes).normal(0, 4, (700, classes))
    block = stored(x, dtype)
    exact = to_floats(block, dtype).astype(np.float64)
    expected = np.log(np.exp(exact).sum(axis=-1))
    assert np.abs(log_sum_exp(block, dtype) - expected).max() < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_extremes_bring_the_sums_of_the_rows_that_were_asked_for(dtype: str) -> None:
    x = np.random.default_rng(1).normal(0, 1, (3000, 400))
    x[::5] += 30.0
    x[7, 0], x[9] = np.nan, -np.inf
    block = stored(x, dtype)
    found = extremes(block, dtype, Between(-5.0, 20.0))
    wanted = (found.max > -5.0) & (found.max < 20.0)
    assert np.array_equal(~np.isnan(found.log_sum_exp), wanted)
    assert found.log_sum_exp[wanted] == pytest.approx(log_sum_exp(block[wanted], dtype), abs=1e-6)
    assert np.isnan(extremes(block, dtype).log_sum_exp).all()


def stored(x: np.ndarray, dtype: str) -> np.ndarray:
    """Values as files hold them: bits for bfloat16, which NumPy lacks."""
    if dtype != "bfloat16":
        return x.astype(dtype)
    return (x.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
