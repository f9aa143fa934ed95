"""Ranks tell each other by files which of them is to blame."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nanhunt.watch import ranks
from nanhunt.watch.incident import FoundBy, Incident


def incident(rank: int, found_by: FoundBy, gradients: tuple[str, ...] = ("weight",)) -> Incident:
    return Incident(3, "", None, (), (), (), gradients, 2, found_by, rank=rank)


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Three ranks whose processes share a folder; the second has written a capture."""
    shared, captures = tmp_path / "shared", tmp_path / "captures"
    shared.mkdir()
    captures.mkdir()
    (captures / "step-3-rank-1.pt").touch()
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("NANHUNT_FAMILY", str(shared))
    for name in ("PATIENCE", "LINGER", "HEARING"):
        monkeypatch.setattr(ranks, name, 0.05)
    return captures


FIRST = "rank 1 was the first to go bad, at step 3"


def test_the_guilty_rank_hears_that_the_others_were_sound(three: Path) -> None:
    for rank in (0, 2):
        assert ranks.notes(three, 0.0, incident(rank, FoundBy.REDUCED)) == (FIRST,)
    assert ranks.notes(three, 0.0, incident(1, FoundBy.REPETITION)) == (
        FIRST,
        "ranks 0, 2 were finite before the all-reduce (each has repeated the step alone): "
        "the gradients of all ranks went bad through this one's data",
    )


def test_ranks_that_each_run_a_nanhunt_hear_each_other_by_the_captures(
    three: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / f"nanhunt-{os.getpid()}-x"
    own.mkdir()
    monkeypatch.setenv("NANHUNT_FAMILY", str(own))
    (three / "step-3-rank-2.sound").touch()
    os.utime(three / "step-3-rank-2.sound", (1, 1))  # of another run
    ranks.notes(three, 2.0, incident(0, FoundBy.REDUCED))
    told = ranks.notes(three, 2.0, incident(1, FoundBy.REPETITION))
    assert told[1].startswith("rank 0 was finite before the all-reduce")


def test_nothing_is_said_of_ranks_that_have_said_nothing(three: Path) -> None:
    assert ranks.notes(three, 0.0, incident(1, FoundBy.REPETITION)) == (FIRST,)


def test_a_bad_loss_stops_before_the_others_are_heard(three: Path) -> None:
    told = ranks.notes(three, 0.0, incident(1, FoundBy.REPETITION, ()))
    assert told == (FIRST, ranks._STOPPED)


def test_an_older_capture_is_another_runs(three: Path) -> None:
    later = (three / "step-3-rank-1.pt").stat().st_mtime + 1
    assert ranks.notes(three, later, incident(0, FoundBy.REDUCED)) == ()


def test_one_process_has_no_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert ranks.notes(tmp_path, 0.0, incident(0, FoundBy.REPETITION)) == ()
