"""--first: the first bad step, and how little of the run is opened for it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from checkpoint_series import opened_files, trainer, weights
from safetensors.torch import save_file
from typer.testing import CliRunner

import nanhunt
from nanhunt.cli.app import app
from nanhunt.errors import NanhuntError
from nanhunt.results.series import beginnings


def small(run: Path, steps: Iterable[int], bad: Iterable[int]) -> None:
    """Checkpoints of one file."""
    for step in steps:
        folder = run / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        save_file(weights(step in set(bad)), folder / "model.safetensors")


def first_step(run: Path) -> tuple[int | None, str]:
    """(the first bad step, what was assumed)."""
    report = nanhunt.check(run, first=True)
    return next((began.step for began in beginnings(report)), None), " ".join(report.assumed)


@pytest.mark.parametrize(
    ("count", "bad_from"), [(64, 2), (64, 3), (64, 17), (64, 32), (64, 63), (64, 64), (1000, 2), (1000, 777)]
)
def test_a_series_of_checkpoints_is_halved(tmp_path: Path, count: int, bad_from: int) -> None:
    small(tmp_path, range(1, count + 1), range(bad_from, count + 1))
    with opened_files(tmp_path) as opened:
        step, said = first_step(tmp_path)
    assert step == bad_from
    assert len(opened) <= 2 + math.ceil(math.log2(count))
    assert said.startswith(
        f"opened {len(opened)} of {count:,} checkpoints, assuming that a weight that is NaN stays NaN"
    )


def test_the_step_before_is_known_to_be_clean(tmp_path: Path) -> None:
    trainer(tmp_path, range(10, 100, 10), bad_from=60)
    (began,) = beginnings(nanhunt.check(tmp_path, first=True))
    assert (began.step, began.clean_step, began.tensor) == (60, 50, "model.layers.1.mlp.weight")
    assert began.path.endswith("checkpoint-60")


@pytest.mark.parametrize(
    ("bad", "step", "said"),
    [
        (range(1, 9), 1, "opened 2 of 8 checkpoints: the oldest one, "),
        ((), None, "opened 2 of 8 checkpoints: both ends are clean, "),
        ((1, 2), 1, "so bad weights did not stay bad here"),
    ],
)
def test_the_two_ends_are_looked_at(tmp_path: Path, bad: Iterable[int], step: int | None, said: str) -> None:
    small(tmp_path, range(1, 9), bad)
    found, assumed = first_step(tmp_path)
    assert found == step
    assert said in assumed


def activations(run: Path, bad: Iterable[int]) -> None:
    """Six steps of one module's output."""
    for step in range(6):
        folder = run / f"step_{step}"
        folder.mkdir(parents=True)
        values = torch.ones(2, 3)
        values[0, 0] = torch.inf if step in set(bad) else 1.0
        save_file({"data": values}, folder / "model.layers.0.mlp_outputs.safetensors")


def test_activations_are_read_in_order_since_they_recover(tmp_path: Path) -> None:
    activations(tmp_path, bad=(2, 5))
    with opened_files(tmp_path) as opened:
        step, said = first_step(tmp_path)
    assert (step, said[:27]) == (2, "read 3 of 6 steps in order:")
    assert {name[:6] for name in opened} == {
        "step_0",
        "step_1",
        "step_2",
        "step_5",
    }  # the last to see what it is


def test_activations_without_a_fault_are_all_read(tmp_path: Path) -> None:
    activations(tmp_path, bad=())
    assert first_step(tmp_path) == (
        None,
        "read 6 of 6 steps in order: activations and gradients are made anew in each",
    )


def test_what_is_no_series_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NanhuntError, match="nothing that is called after a step"):
        nanhunt.check(tmp_path, first=True)
    with pytest.raises(NanhuntError, match="--first takes one folder"):
        nanhunt.check([tmp_path, tmp_path], first=True)


def test_only_the_answer_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer(Path("run"), range(10, 100, 10), bad_from=60)
    shown = CliRunner().invoke(app, ["check", "run", "--first"])
    assert shown.exit_code == 1
    text = " ".join(shown.stdout.split())
    assert "last good: run/checkpoint-50, first bad: run/checkpoint-60 (model 1 of 3, " in text
    assert text.endswith("is not The findings of the steps that were read: -v")
    assert "non-finite-values" not in text
    assert "non-finite-values" in CliRunner().invoke(app, ["check", "run", "--first", "-v"]).stdout


def test_calls_are_in_the_order_of_the_index_beside_them(tmp_path: Path) -> None:
    """The debug tree of transformers says that layer 1 was called first."""
    for step in range(2):
        folder = tmp_path / f"step_{step}"
        folder.mkdir()
        for layer in range(2):
            values = torch.full((2, 3), torch.nan if step else 1.0)
            save_file({"data": values}, folder / f"model.layers.{layer}_outputs.safetensors")
        children = [{"module_path": f"model.layers.{layer}"} for layer in (1, 0)]
        tree = json.dumps({"module_path": "model", "children": children})
        (folder / "Model_debug_tree_SUMMARY.json").write_text(tree)
    (began,) = beginnings(nanhunt.check(tmp_path, first=True))
    assert (began.step, Path(began.file).name) == (1, "model.layers.1_outputs.safetensors")


def test_what_the_trainer_logged_is_told_once(tmp_path: Path) -> None:
    trainer(tmp_path, range(1, 9), bad_from=4)
    for step in range(1, 9):
        log = {
            "log_history": [{"step": at, "loss": 1.0 if at < 4 else math.nan} for at in range(1, step + 1)]
        }
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(log))
    (loss,) = nanhunt.check(tmp_path, first=True).logged
    assert (loss.steps, loss.file) == ((2, 3, 4), str(tmp_path / "checkpoint-8" / "trainer_state.json"))


@pytest.mark.parametrize("damaged", [{8}, {1}, {7, 8}, {4}, {3, 5}, {4, 5, 6}, {2, 4, 6, 8}])
def test_a_checkpoint_that_cannot_be_read_does_not_hide_where_it_began(
    tmp_path: Path, damaged: set[int]
) -> None:
    """The last one was being written when the run died; its neighbour is asked instead."""
    small(tmp_path, range(1, 9), range(3, 9))
    for step in damaged:
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"half")
    whole = [step for step in range(3, 9) if step not in damaged]
    step, said = first_step(tmp_path)
    assert step == whole[0]
    oldest = min({1, 2} - damaged)
    assert f"checkpoint-{oldest} is clean" in said
    assert f"checkpoint-{whole[-1]} is not" in said


def test_an_empty_folder_and_no_readable_checkpoint_at_all(tmp_path: Path) -> None:
    small(tmp_path, range(1, 5), [3, 4])
    (tmp_path / "checkpoint-5").mkdir()
    assert first_step(tmp_path)[0] == 3
    for file in tmp_path.rglob("*.safetensors"):
        file.write_bytes(b"half")
    assert nanhunt.check(tmp_path, first=True).exit_code == 2


def test_weights_of_which_all_checkpoints_lost_a_part(tmp_path: Path) -> None:
    trainer(tmp_path, (10, 20))
    for file in tmp_path.rglob("optimizer.pt"):
        file.write_bytes(b"PK\x03\x04")
    _, said = first_step(tmp_path)
    assert (
        said == "opened 2 of 2 checkpoints: none of them could be read in full, and none shows anything bad"
    )
