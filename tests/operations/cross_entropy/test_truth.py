"""The float64 reference against mpmath, 50 digits beyond the smallest number there is."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

from nanhunt.operations.cross_entropy.forms import Labels, Loss
from nanhunt.operations.cross_entropy.truth import largest_outside, truth

BATCH = [
    [0.3, -1.2, 2.5, 0.0], [1000.0, 1.0, -1000.0, 999.0], [1e8, 1e8, 0.0, -1e8], [40.0, 0.0, 1.0, 2.0],
    [700.0, 0.0, -700.0, 1.0], [-1e4, -1.0001e4, -1.2e4, -1.1e4], [5.0, -math.inf, 4.0, 3.0],
    [0.0, 0.0, 0.0, 0.0], [1e-300, -1e-300, 0.0, 1e-5], [60.0, 60.0, 0.0, 1.0],
]  # fmt: skip
WEIGHTS = [0.5, 2.0, 0.25, 3.0]
mpmath.mp.dps = 700 + 50  # a loss of 1e-304 needs 304 digits before the first that counts


def neg_logs(row: list[float], temperature: float) -> list[mpmath.mpf]:
    """-log p of every class of one row, in exact enough arithmetic."""
    z = [mpmath.mpf(value) / mpmath.mpf(temperature) for value in row]
    log_sum = mpmath.log(sum(mpmath.exp(value) for value in z))
    return [log_sum - value for value in z]


def close(value: float, exact: mpmath.mpf) -> bool:
    """Within a few float64 roundings of the exact number, relative to it."""
    if mpmath.isinf(exact):
        return value == float(exact)
    return bool(abs(mpmath.mpf(value) - exact) <= mpmath.mpf(2) ** -49 * abs(exact))


def hard(label: int) -> Labels:
    """The same label for every row."""
    return Labels(torch.full((len(BATCH),), label), torch.ones(len(BATCH), dtype=torch.bool))


@pytest.mark.parametrize("label", range(4))
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_losses_to_the_last_digits(label: int, temperature: float) -> None:
    losses = truth(torch.tensor(BATCH, dtype=torch.float64), hard(label), Loss(temperature=temperature))
    for row, loss in zip(BATCH, losses.tolist(), strict=True):
        assert close(loss, neg_logs(row, temperature)[label])


def test_near_one_the_loss_survives_where_log_softmax_loses_it() -> None:
    x = torch.tensor([[40.0, 0.0]], dtype=torch.float64)
    assert float(torch.nn.functional.cross_entropy(x, torch.tensor([0]))) == 0.0
    assert float(truth(x, Labels(torch.tensor([0]), torch.tensor([True])), Loss())) == math.exp(-40.0)


@pytest.mark.parametrize("label", range(4))
def test_the_largest_probability_outside_the_label(label: int) -> None:
    x = torch.tensor(BATCH, dtype=torch.float64)
    others = largest_outside(x, torch.full((len(BATCH),), label), Loss())
    for row, value in zip(BATCH, others.tolist(), strict=True):
        exact = max(mpmath.exp(-loss) for index, loss in enumerate(neg_logs(row, 1.0)) if index != label)
        # Below the smallest normal float64 only the absolute error is small.
        assert abs(mpmath.mpf(value) - exact) <= mpmath.mpf(2) ** -40 * exact + mpmath.mpf(2) ** -1022


def test_smoothing_and_weights_as_cross_entropy_defines_them() -> None:
    eps, x = 0.1, torch.tensor(BATCH[:6], dtype=torch.float64)
    labels = Labels(torch.tensor([0, 1, 2, 3, 0, 1]), torch.ones(6, dtype=torch.bool))
    options = Loss(label_smoothing=eps, weights=torch.tensor(WEIGHTS, dtype=torch.float64))
    true = truth(x, labels, options)
    assert labels.classes is not None
    for number, label in enumerate(labels.classes.tolist()):
        each = neg_logs(BATCH[number], 1.0)
        share = mpmath.mpf(eps) / 4
        main = (1 - mpmath.mpf(eps)) * each[label]
        exact = main * WEIGHTS[label] + share * sum(w * loss for w, loss in zip(WEIGHTS, each, strict=True))
        assert close(float(true[number]), exact)


def test_probability_targets_with_a_mask_count_zero_times_infinity_as_zero() -> None:
    x = torch.tensor([[2.0, 1.0, -math.inf]], dtype=torch.float64)
    y = torch.tensor([[0.7, 0.3, 0.0]], dtype=torch.float64)
    each = neg_logs([2.0, 1.0], 1.0)
    exact = mpmath.mpf(0.7) * each[0] + mpmath.mpf(0.3) * each[1]
    assert close(float(truth(x, Labels(None, torch.tensor([True]), y), Loss())), exact)


def test_ignored_rows_have_loss_zero_whatever_they_hold() -> None:
    x = torch.tensor([[math.nan, 1.0], [math.inf, 0.0], [-math.inf, -math.inf]])
    labels = Labels(torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.bool))
    assert truth(x, labels, Loss()).tolist() == [0.0, 0.0, 0.0]


def test_a_masked_label_costs_infinitely_much() -> None:
    x = torch.tensor([[-math.inf, 1.0]])
    assert truth(x, Labels(torch.tensor([0]), torch.tensor([True])), Loss()).tolist() == [math.inf]


@pytest.mark.parametrize("row", [[math.inf, 0.0], [math.nan, 0.0], [-math.inf, -math.inf]])
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_a_weight_of_0_gives_no_loss_to_a_row_that_has_no_softmax(row: list[float], kind: str) -> None:
    kept = torch.tensor([True])
    probabilities = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    labels = Labels(torch.tensor([1]), kept) if kind == "labels" else Labels(None, kept, probabilities)
    x, weights = torch.tensor([row], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    target = labels.classes if labels.classes is not None else probabilities
    assert torch.nn.functional.cross_entropy(x, target, weights, reduction="sum").isnan()
    assert truth(x, labels, Loss(weights=weights)).isnan()
