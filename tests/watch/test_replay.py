"""A saved step is repeated without its script, says what the run said, and executes nothing that a file brings."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_faults import HERE, hunt
from typer.testing import CliRunner

from nanhunt.cli.app import app
from nanhunt.errors import NanhuntError
from nanhunt.watch import saved_step
from nanhunt.watch.replay import load

FAULTS = HERE / "faults"
RANDOM = """
import torch
torch.manual_seed(3)
layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5))
noise = torch.rand(6, 8)
out = layers(torch.randn(6, 4)) * (noise > 0.2)
out.data.mul_(2)
chosen = out[:, [0, 3, 5]].unbind(0)
total = torch.stack(chosen).abs().sum(1)
total[0] *= 0
(torch.randn(6).sign() * total.clamp(max=9).log()).mean().backward()
"""


@pytest.mark.parametrize(
    "script", ["vae_log_variance", "checkpointing", "nan_parameter", "several_terms", "in_place_division"]
)
def test_the_step_repeated_from_its_file_says_what_the_run_said(script: str, tmp_path: Path) -> None:
    [incident], _ = hunt(FAULTS / f"{script}.py", tmp_path)
    assert incident.replay == str(tmp_path / f"step-{incident.step}-replay.pt")
    again = load(incident.replay).incident()
    assert again is not None
    assert again.culprits == incident.culprits
    assert (again.step, again.what) == (incident.step, incident.what)
    assert again.bad_gradients == incident.bad_gradients


MADE = """
import torch
torch.manual_seed(0)
layer = torch.nn.Linear(3, 3)
noise = torch.rand(4, 3, requires_grad=True)
point = torch.zeros(4, 3).requires_grad_()
((point * point).sum(-1).sqrt() + layer(point + torch.rand(4, 3)).sum(-1) + (noise * 0).sum(-1).sqrt()).sum().backward()
"""


def test_leaves_that_the_step_made_have_their_gradients_looked_at(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(MADE)
    [incident], _ = hunt(script, tmp_path / "capture")
    again = load(incident.replay).incident()
    assert again is not None
    assert set(again.bad_gradients) == set(incident.bad_gradients) == {"noise", "point"}
    assert again.culprits == incident.culprits


def test_random_numbers_statistics_and_writes_come_out_as_they_were(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(RANDOM)
    [incident], _ = hunt(script, tmp_path / "capture")
    assert (incident.replay, incident.not_saved) == (str(tmp_path / "capture" / "step-1-replay.pt"), "")
    again = load(incident.replay).incident()
    assert again is not None
    assert again.culprits == incident.culprits


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("custom_backward", "the backward of Root is code of its own, and a file holds no code"),
        ("gradient_penalty", "gradients go through grad to tensors that it was not given"),
        ("hidden_state", "repeated from the file alone it went another way"),
        ("ctc_target_too_long", "aten._ctc_loss.Tensor is not among the operations that a file may ask for"),
    ],
)
def test_where_it_cannot_be_repeated_that_is_said(script: str, why: str, tmp_path: Path) -> None:
    [incident], _ = hunt(FAULTS / f"{script}.py", tmp_path)
    assert (incident.replay, incident.not_saved) == (None, why)
    assert not list(tmp_path.glob("*-replay.pt"))
    with pytest.raises(NanhuntError, match=f"no step that could be repeated: {why}"):
        load(incident.capture)


def test_a_large_step_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_step, "MAX_BYTES", 10)
    [incident], _ = hunt(FAULTS / "vae_log_variance.py", tmp_path)
    assert incident.not_saved == "its inputs take 0 MiB, more than 0"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a file holds."""
    folder = tmp_path_factory.mktemp("replay")
    [incident], _ = hunt(FAULTS / "temperature_zero.py", folder)
    return torch.load(incident.replay, weights_only=True)


def changed(saved: dict[str, Any], folder: Path, change: Callable[[dict[str, Any]], object]) -> str:
    step = json.loads(saved["nanhunt"]["replay"])
    change(step)
    path = folder / "step-1-replay.pt"
    torch.save({**saved, "nanhunt": {**saved["nanhunt"], "replay": json.dumps(step)}}, path)
    return str(path)


def ran(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["run", *arguments])
    return done.exit_code, done.output


def test_the_command_exits_with_1_where_it_goes_bad_again(saved: dict[str, Any], tmp_path: Path) -> None:
    code, text = ran("--replay", changed(saved, tmp_path, lambda step: None))
    assert code == 1
    assert text.startswith("nanhunt: step 3 · the loss is nan\n  div at ")
    assert "division-by-zero: the divisor is the number 0" in text


def test_it_exits_with_0_where_it_is_finite_here(saved: dict[str, Any], tmp_path: Path) -> None:
    def divide_by_one(step: dict[str, Any]) -> None:
        lines = [
            line for entry in step["entries"] for line in entry["lines"] if line["call"] == "aten.div.Tensor"
        ]
        assert lines
        for line in lines:
            line["args"][1] = 1.0

    code, text = ran("--replay", path := changed(saved, tmp_path, divide_by_one))
    assert (code, text) == (
        0,
        f"nanhunt: step 3, repeated from {path}, is finite here (it was not: the loss is nan)\n",
    )


@pytest.mark.parametrize("name", ["aten.from_file.default", "aten.div.out", "builtins.eval"])
def test_what_is_not_on_the_list_is_refused_before_anything_runs(
    name: str, saved: dict[str, Any], tmp_path: Path
) -> None:
    def ask_for_more(step: dict[str, Any]) -> None:
        step["entries"][-1]["lines"][-1]["call"] = name

    with pytest.raises(NanhuntError, match=r"it asks for .*, which no file may"):
        load(changed(saved, tmp_path, ask_for_more))


@pytest.mark.parametrize("key", ["entries", "inputs", "memory", "roots", "version"])
def test_a_damaged_step_is_refused(key: str, saved: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(NanhuntError, match="holds no step that nanhunt has written"):
        load(changed(saved, tmp_path, lambda step: step.update({key: 7})))
    with pytest.raises(NanhuntError, match="holds no step that nanhunt has written"):
        load(changed(saved, tmp_path, lambda step: step.pop(key)))


class _Runs:
    """Would run code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('it ran')",)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "step-1-replay.pt"
    torch.save({"nanhunt": _Runs()}, path)
    with pytest.raises(NanhuntError, match="not a file that nanhunt run has written"):
        load(str(path))
    path.write_bytes(pickle.dumps(_Runs()))
    with pytest.raises(NanhuntError, match="not a file that nanhunt run has written"):
        load(str(path))


def test_a_path_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(NanhuntError, match=r"cannot read .*gone.pt: No such file or directory"):
        load(str(tmp_path / "gone.pt"))
