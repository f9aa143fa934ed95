"""What the Trainer's own log says beside the checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanhunt
from nanhunt.load.training_log import read_log


def written(folder: Path, step: int, losses: list[Any]) -> str:
    path = folder / f"checkpoint-{step}" / "trainer_state.json"
    path.parent.mkdir(parents=True)
    entries = [{"step": 10 * at, "loss": loss, "grad_norm": 1.0} for at, loss in enumerate(losses, 1)]
    path.write_text(json.dumps({"log_history": [*entries, {"step": 99, "eval_loss": 1.0}]}))
    return str(path)


def test_the_newest_log_up_to_the_first_nan(tmp_path: Path) -> None:
    files = [
        written(tmp_path, 9, [1.0]),
        written(tmp_path, 100, [6.5, 6.04, 6.01, math.nan, math.nan]),
        "x.json",
    ]
    loss, norm = read_log(files).lines
    assert (loss.name, loss.steps, loss.file) == ("loss", (20, 30, 40), files[1])
    assert loss.values[:2] == (6.04, 6.01)
    assert math.isnan(loss.values[2])
    assert (norm.name, norm.steps) == ("grad_norm", (30, 40, 50))


def test_a_finite_log_is_told_by_its_end(tmp_path: Path) -> None:
    loss, _ = read_log([written(tmp_path, 5, [3.0, 2, 1.0])]).lines
    assert loss.values == (3.0, 2.0, 1.0)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"log_history": 3}', '{"log_history": [3]}'])
def test_a_damaged_log_says_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(text)
    log = read_log([str(path), str(tmp_path / "gone" / "trainer_state.json")])
    assert (log.lines, log.files) == ((), frozenset())


def test_what_was_read_is_not_among_what_was_not_looked_at(tmp_path: Path) -> None:
    written(tmp_path, 1, [3.0])
    written(tmp_path, 2, [3.0, 2.0])
    (tmp_path / "checkpoint-2" / "config.json").write_text("{}")
    for step in (1, 2):
        np.save(tmp_path / f"checkpoint-{step}" / "weights.npy", np.ones((2, 2), np.float32))
    report = nanhunt.check(tmp_path)
    assert [Path(item.file).name for item in report.not_looked_at] == ["config.json"]
    assert [line.values for line in report.logged if line.name == "loss"] == [(3.0, 2.0)]


def test_a_log_without_losses_was_looked_at_all_the_same(tmp_path: Path) -> None:
    """As with logging_strategy="no", or before the first logging step."""
    log = written(tmp_path, 1, [])
    np.save(tmp_path / "checkpoint-1" / "weights.npy", np.ones((2, 2), np.float32))
    assert read_log([log]).files == {log}
    assert not nanhunt.check(tmp_path).not_looked_at
