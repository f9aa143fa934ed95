"""Rules whose condition has a second half: rows that only this half finds, or keeps from being found."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
import torch

import nanhunt

SOUND = [0.0, 1.0, 2.0]


def found(rows: list[list[float]], labels: list[int], dtype: torch.dtype, **options: Any) -> dict[str, int]:
    """Rows by the code of each rule that found some; the same whether rows are screened or all of them are run."""
    logits, targets = torch.tensor(rows, dtype=dtype), torch.tensor(labels)
    reports = [judge(logits, targets, **options) for judge in (nanhunt.check, nanhunt.compare)]
    counts = [{finding.code: finding.count for finding in report.findings} for report in reports]
    assert counts[0] == counts[1]
    return counts[0]


@pytest.mark.parametrize(("label", "count"), [(0, 1), (-100, 0)])
def test_a_constant_row_that_is_left_out_is_nobodys_loss(label: int, count: int) -> None:
    assert found([[1e30] * 3, SOUND], [label, 1], torch.float32).get("NH012", 0) == count


@pytest.mark.parametrize("number", [inf, float("nan")])
def test_a_row_that_is_left_out_poisons_the_gradient_by_infinity_too(number: float) -> None:
    assert found([[number, 0.0, 1.0], SOUND], [-100, 1], torch.float32)["NH008"] == 1


def test_smoothing_finds_a_probability_of_zero_at_any_class() -> None:
    rows = [[0.0, -200.0, 1.0], SOUND]
    assert "NH201" not in found(rows, [0, 1], torch.float32)
    assert found(rows, [0, 1], torch.float32, label_smoothing=0.1)["NH201"] == 1


def test_losses_that_are_finite_each_add_up_to_infinity() -> None:
    rows, labels = [[1.2e38, 0.0, 0.0]] * 4, [1] * 4
    assert "NH011" in found(rows, labels, torch.float32, reduction="sum")
    assert "NH011" not in found(rows[:2], labels[:2], torch.float32, reduction="sum")
