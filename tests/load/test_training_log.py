"""What the Trainer's own log says beside the checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from nanhunt.load.training_log import logged


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
    loss, norm = logged(files)
    assert (loss.name, loss.steps, loss.file) == ("loss", (20, 30, 40), files[1])
    assert loss.values[:2] == (6.04, 6.01)
    assert math.isnan(loss.values[2])
    assert (norm.name, norm.steps) == ("grad_norm", (30, 40, 50))


def test_a_finite_log_is_told_by_its_end(tmp_path: Path) -> None:
    loss, _ = logged([written(tmp_path, 5, [3.0, 2, 1.0])])
    assert loss.values == (3.0, 2.0, 1.0)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"log_history": 3}', '{"log_history": [3]}', '{"log_history": []}']
)
def test_a_damaged_log_says_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(text)
    assert not list(logged([str(path), str(tmp_path / "gone" / "trainer_state.json")]))
