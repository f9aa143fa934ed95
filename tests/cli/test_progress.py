"""What the bar is told: bytes done of bytes to come."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from nanhunt.cli import progress
from nanhunt.cli.progress import Progress
from nanhunt.scan.options import Options
from nanhunt.scan.survey import Survey


def test_the_size_is_known_before_the_first_file_is_read(tmp_path):
    for step in range(3):
        np.save(tmp_path / f"{step}.npy", np.ones((4, 5), np.float32))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    told: list[int | None] = []
    survey = Survey(Options(dtype=("float32", "float16")), expect=told.append)
    reports = survey.paths([str(tmp_path)])
    next(reports)
    next(reports)
    assert told == [2 * size]


@pytest.mark.parametrize(("expected", "shown"), [(200, 200), (50, 100), (None, None)])
def test_the_bar_never_ends_before_the_work(monkeypatch, expected, shown):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "PATIENCE", 0)
    with Progress() as bar:
        bar.expect(expected)
        bar.advance(100)
        assert bar._bar is not None
        task = bar._bar.tasks[0]
        assert (task.completed, task.total) == (100, shown)
