"""What the bar is told: bytes done of bytes to come."""

from __future__ import annotations

import io
import sys
import time

import numpy as np
import pytest

from nanhunt.cli import progress
from nanhunt.cli.progress import Progress
from nanhunt.load import remote
from nanhunt.scan.inputs import Scan
from nanhunt.scan.options import Options


def test_the_size_is_known_before_the_first_file_is_read(tmp_path):
    for step in range(3):
        np.save(tmp_path / f"{step}.npy", np.ones((4, 5), np.float32))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    told: list[tuple[int | None, int]] = []
    scan = Scan(Options(dtype=("float32", "float16")), expect=lambda *what: told.append(what))
    reports = scan.paths([str(tmp_path)])
    next(reports)
    next(reports)
    assert told == [(2 * size, 3)]


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


def test_bytes_that_come_from_far_away_are_shown_before_they_are_judged(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "PATIENCE", 0)
    with Progress() as bar:
        bar.expect(100)
        for size in (30, 40):
            for tell in remote.arrived:
                tell(size)
        bar.advance(30)
        assert bar._bar is not None
        assert bar._bar.tasks[0].completed == 70
    assert remote.arrived == []


def test_it_says_what_is_done_and_what_is_left(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    with Progress() as bar:
        bar.expect(8_000_000, 300)
        bar.finished(12)
        for _ in range(4):
            bar.advance(500_000)
            time.sleep(0.01)
        assert bar._bar is not None
        bar._bar.refresh()
    shown = screen.getvalue()
    assert "judging, 12 of 300 files" in shown
    assert "/?" not in shown
    assert " ?" not in shown
    assert "2.0/8.0 MB" in shown
    assert "MB/s" in shown
    assert "0:00:0" in shown  # what remains
