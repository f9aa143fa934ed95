"""Running one block: what is asked of the whole tensor comes in, and float8 is judged as it is cast and upcast."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nanhunt.dtypes.formats import FORMATS
from nanhunt.operations.cross_entropy.confirm import Batch, RowTargets, cast, confirm
from nanhunt.operations.cross_entropy.facts import ROW_FIELDS
from nanhunt.operations.cross_entropy.forms import IMPLEMENTATIONS, Loss


def batch(dtype: str = "float32", stored: str = "float32", share: float = 1.0) -> Batch:
    """A loss whose reduction hands ``share`` back to every row."""
    compute = getattr(torch, FORMATS[dtype].compute)
    gradient = torch.tensor(share, dtype=compute)
    return Batch(stored, dtype, Loss(), gradient, gradient, gradient)


def labelled(labels: list[int]) -> RowTargets:
    """Every row counted."""
    no = np.zeros(len(labels), bool)
    return RowTargets(np.array(labels), no, no)


def test_harmless_rows_have_no_fact_but_their_losses() -> None:
    block = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    labels = np.arange(50) % 7
    confirmed = confirm(block, labelled(labels.tolist()), batch())
    assert not any(getattr(confirmed.facts, name).any() for name in ROW_FIELDS)
    exact = F.cross_entropy(
        torch.from_numpy(block).double(), torch.from_numpy(labels), reduction="none"
    ).numpy()
    np.testing.assert_allclose(confirmed.truth, exact, rtol=1e-12)
    assert set(confirmed.losses) == set(IMPLEMENTATIONS)
    for losses in confirmed.losses.values():
        assert losses.dtype == np.float64
        np.testing.assert_allclose(losses, exact, rtol=1e-5)
    assert confirmed.uncast_truth is None


def test_a_row_with_an_unusable_label_has_no_loss() -> None:
    bad = np.array([True, False])
    confirmed = confirm(
        np.zeros((2, 3), np.float32), RowTargets(np.array([7, 0]), ~bad & False, bad), batch()
    )
    for losses in (*confirmed.losses.values(), confirmed.truth):
        assert math.isnan(losses[0])
        assert losses[1] == pytest.approx(math.log(3))
    assert confirmed.facts.bad_label.tolist() == [True, False]
    assert not any(behaviour.nan_loss.any() for behaviour in confirmed.facts.by.values())


def test_the_reductions_share_decides_whether_1_over_p_overflows() -> None:
    """float16, 1/p beyond 65,504: a sum overflows, a mean over enough rows is multiplied in first."""
    block = np.array([[0.0, -11.5]], np.float16)
    whole = confirm(block, labelled([1]), batch("float16", "float16"))
    small = confirm(block, labelled([1]), batch("float16", "float16", share=1 / 1024))
    assert whole.facts.by["naive"].bad_gradient.tolist() == [True]
    assert small.facts.by["naive"].bad_gradient.tolist() == [False]
    assert not whole.facts.by["fused"].bad_gradient.any()


def test_the_casts_own_error_is_kept_apart() -> None:
    block = np.array([[300.0, 301.0, 302.0]], np.float32)
    confirmed = confirm(block, labelled([0]), batch("bfloat16"))
    assert confirmed.uncast_truth is not None
    assert confirmed.uncast_truth[0] == pytest.approx(2 + math.log(1 + math.exp(-1) + math.exp(-2)))
    assert confirmed.truth[0] == pytest.approx(2 + math.log(1 + 2 * math.exp(-2)))  # 300, 300, 302


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_is_cast_and_upcast(dtype: str) -> None:
    x = torch.tensor([[1.03, 300.7, -5.3]])
    seen = cast(x, dtype)
    assert seen.dtype == torch.float32
    assert torch.equal(seen, x.to(getattr(torch, dtype)).float())
    confirmed = confirm(x.numpy(), labelled([0]), batch(dtype))
    assert confirmed.facts.exp_inf.tolist() == [True]


def test_without_targets_the_worst_label_is_the_least_likely_unmasked_class() -> None:
    block = np.array([[0.0, -3.0, -math.inf], [math.inf, -math.inf, -math.inf]], np.float32)
    confirmed = confirm(block, RowTargets(), batch())
    assert confirmed.losses["fused"][0] == pytest.approx(3 + math.log1p(math.exp(-3)))
    assert confirmed.facts.by["naive"].zero_target_probability.tolist() == [False, False]


def test_a_negative_temperature_makes_the_largest_logit_the_least_likely() -> None:
    block = np.array([[200.0, 0.0, 1.0], [math.inf, 3.0, 2.0]], np.float32)
    turned = replace(batch(), options=Loss(temperature=-1.0))
    confirmed = confirm(block, RowTargets(), turned)
    assert confirmed.truth[0] == pytest.approx(200 + math.log(1 + math.exp(-1)))
    assert confirmed.losses["naive"][0] == math.inf
    # +inf / -1 is a masked class: the worst of the others is judged.
    assert confirmed.truth[1] == pytest.approx(math.log(1 + math.exp(1)))
