"""Logits row by row against torch's own functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nanhunt.difference.rows import measure_rows

BOTH = ("float64", "float64")


def test_divergence_loss_and_classes_are_those_of_torch() -> None:
    rng = np.random.default_rng(1)
    a = rng.standard_normal((50, 20))
    b = a + 0.3 * rng.standard_normal(a.shape)
    labels = rng.integers(0, 20, 50)
    labels[::7] = -100
    found = measure_rows(a, b, BOTH, labels, 100, 10)
    one, other, target = torch.tensor(a), torch.tensor(b), torch.tensor(labels)
    rows = F.kl_div(other.log_softmax(-1), one.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    back = F.kl_div(one.log_softmax(-1), other.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    assert found.kl == pytest.approx(float(rows.sum()))
    assert (found.largest_kl.row, found.largest_kl_back.row) == (
        100 + int(rows.argmax()),
        100 + int(back.argmax()),
    )
    assert found.loss_a / found.labelled == pytest.approx(float(F.cross_entropy(one, target)))
    assert found.loss_b / found.labelled == pytest.approx(float(F.cross_entropy(other, target)))
    changed = one.argmax(-1) != other.argmax(-1)
    assert found.top1.count == int(changed.sum()) > 0
    five = (
        [set(each.topk(5).indices.tolist()) for each in one],
        [set(each.topk(5).indices.tolist()) for each in other],
    )
    assert found.top5 == sum(x != y for x, y in zip(*five, strict=True))


def test_the_margin_is_the_lead_that_was_lost() -> None:
    a, b = np.array([[1.0, 0.75, 0.0], [5.0, 0.0, 0.0]]), np.array([[0.7, 0.75, 0.0], [0.0, 0.0, 1.0]])
    found = measure_rows(a, b, BOTH, None, 0, 10)
    assert (found.top1.first, found.margin.value, found.margin.row) == ((0, 1), 5.0, 1)


def test_a_class_that_one_side_masks_makes_the_divergence_infinite_one_way() -> None:
    a, b = np.array([[0.0, 0.0, -np.inf]]), np.array([[0.0, -np.inf, -np.inf]])
    found = measure_rows(a, b, BOTH, None, 0, 10)
    assert found.largest_kl.value == np.inf
    assert found.largest_kl_back.value == pytest.approx(np.log(2))


def test_rows_without_a_softmax_are_left_out() -> None:
    a = np.array([[0.0, np.nan], [np.inf, 0.0], [-np.inf, -np.inf], [1.0, 2.0]])
    found = measure_rows(a, np.array([[0.0, 1.0]] * 4), BOTH, np.array([0, 0, 0, 1]), 0, 10)
    assert (found.rows, found.left_out, found.labelled) == (1, 3, 1)
