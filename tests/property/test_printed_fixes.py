"""Rule of proofs: what is printed as a fix is run as printed, and does what the report says."""

from __future__ import annotations

import numpy as np
import pytest
from printed import draw, printed, wrong

from nanhunt.operations.cross_entropy import batch

PROBLEMS = 40
"""A small draw; ``tests/benchmarks/printed_fixes.py`` runs 10,000 printed fixes."""


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.filterwarnings("ignore")  # PyTorch's own, about the nonsense that is drawn
def test_every_printed_fix_does_what_the_report_says(seed: int) -> None:
    random = np.random.default_rng(seed)
    fixes = [one for _ in range(PROBLEMS) for one in printed(draw(random))]
    assert sum(one.remedy.works for one in fixes) > 20
    assert sum(not one.remedy.works for one in fixes) > 20
    assert [f"{found}: {one}" for one in fixes if (found := wrong(one))] == []


@pytest.mark.filterwarnings("ignore")
def test_what_is_proven_on_some_rows_of_a_large_tensor_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "WHOLE_VALUES", 0)
    random = np.random.default_rng(2)
    fixes = [one for _ in range(PROBLEMS) for one in printed(draw(random)) if one.remedy.works]
    assert len(fixes) > 20
    assert [f"{found}: {one}" for one in fixes if (found := wrong(one))] == []
