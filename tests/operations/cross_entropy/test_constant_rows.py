"""Rows of one number: a NaN that somebody replaced is told as that, and never as mended by F.cross_entropy."""

from __future__ import annotations

import math

import pytest
import torch

import nanhunt

LABELS = torch.tensor([0, 1, 2, 3])


def logits(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Four rows of random scores, of which row 1 is that number."""
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    x[1] = value
    return x


def found(report) -> dict[str, tuple[int, ...]]:
    return {finding.code: finding.rows for finding in report.findings}


@pytest.mark.parametrize("judge", [nanhunt.check, nanhunt.compare])
@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (-1e30, torch.float32),
        (1e9, torch.float32),
        (-1e4, torch.float16),
        (torch.finfo(torch.float16).min, torch.float16),
        (torch.finfo(torch.bfloat16).min, torch.bfloat16),
        (-1e300, torch.float64),
    ],
)
def test_a_sanitised_row_is_one_error_and_nothing_else(judge, value, dtype):
    report = judge(logits(value, dtype), LABELS)
    assert found(report) == {"NH012": (1,)}
    (finding,) = report.findings
    assert "softmax is uniform, 1/5 each; the loss is 1.60" in finding.message
    assert [(fix.title, fix.works) for fix in finding.remedies] == [
        ("leave rows of one number out of the loss", True)
    ]
    assert found(judge(logits(value, dtype), LABELS, loss="fused")) == {"NH012": (1,)}


def test_replaced_by_zero_it_is_a_note():
    broken = logits(math.nan)
    assert found(nanhunt.check(broken.nan_to_num(), LABELS)) == {"NH402": (1,)}
    assert found(nanhunt.check({"logits": broken.nan_to_num()})) == {"NH402": (1,)}


def test_padding_that_is_ignored_and_rows_with_one_class_left_are_silent():
    ignored = torch.tensor([0, -100, 2, 3])
    assert not nanhunt.check(logits(0.0), ignored).findings
    masked = logits(-math.inf)
    masked[1, 1] = 0.0
    for judge in (nanhunt.check, nanhunt.compare):
        assert not judge(masked, LABELS).findings
        assert not judge(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long)).findings


def test_scores_that_only_a_cast_makes_equal_are_no_constant():
    x = torch.tensor([[4096.0, 4096.5, 4097.0]])
    assert "NH012" not in found(nanhunt.check(x, torch.tensor([0]), "float16"))


def test_a_row_is_run_again_only_for_numbers_that_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row may have 1e8 classes: what it is told to hold needs no softmax."""
    from nanhunt.operations.cross_entropy import row

    def refuse(*_: object) -> None:
        raise AssertionError("run")

    monkeypatch.setattr(row, "run", refuse)
    (tensor,) = nanhunt.check(torch.zeros(1, 7)).tensors
    assert [finding.code for finding in tensor.findings] == ["NH402"]
