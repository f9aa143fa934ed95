"""The sum that settles float16 rows, against float64 over every bit pattern there is."""

from __future__ import annotations

import numpy as np
import pytest

from nanhunt.numerics.extremes import log_sum_exp


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
