"""--loss fused: who calls F.cross_entropy hears of what breaks that, and of nothing else."""

from __future__ import annotations

import numpy as np

import nanhunt


def codes(loss: str | None, x: np.ndarray, **options) -> list[str]:
    report = nanhunt.check(x, loss=loss, **options)
    return [finding.code for finding in report.findings]


def test_warnings_about_code_by_hand_are_dropped() -> None:
    x = np.array([[20.0, 0.0], [1.0, 2.0]], np.float16)
    assert "NH101" in codes(None, x, targets=[0, 1])
    assert codes("naive", x, targets=[0, 1]) == codes(None, x, targets=[0, 1])
    assert codes("fused", x, targets=[0, 1]) == [
        "NH202",
        "NH302",
    ]  # notes: these are about F.cross_entropy itself
    assert nanhunt.check(x, [0, 1], loss="fused").ok


def test_what_breaks_the_fused_one_stays() -> None:
    x = np.array([[20.0, 0.0], [np.nan, 2.0]], np.float16)
    assert codes("fused", x, targets=[0, 1]) == ["NH001", "NH202", "NH302"]


def test_casts_of_weights_are_no_loss() -> None:
    weights = np.full((100, 4), 1e-9, np.float32)
    report = nanhunt.check({"weight": weights, "bias": weights}, loss="fused", dtype="float16")
    assert {finding.code for finding in report.findings} == {"NH502"}
