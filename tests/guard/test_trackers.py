"""The lines of the guide that log a finding, run with the real trackers, offline."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import nanhunt

GUIDE = (Path(__file__).parents[2] / ".github" / "GUIDE.md").read_text(encoding="utf-8")


def lines_for(tracker: str) -> str:
    """The block of the guide that is about that tracker."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    (found,) = [block for block in blocks if f"# {tracker}" in block]
    return found


def train(watch: object) -> None:
    """A step that overflows."""
    x = torch.full((1, 3), 200.0, requires_grad=True)
    with watch, pytest.raises(nanhunt.watch.NanFoundError):
        (torch.exp(x) / torch.exp(x).sum()).log().sum().backward()


@pytest.fixture
def report() -> nanhunt.Report:
    return nanhunt.check(torch.tensor([[torch.nan, 1.0]]), torch.tensor([0]))


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield


def run(code: str, **names: object) -> None:
    """The lines as they stand, up to the loop that they are put around."""
    exec(code, {"nanhunt": nanhunt, "train": train, **names})


def test_tensorboard_shows_the_report_as_text(tmp_path: Path, report: nanhunt.Report) -> None:
    pytest.importorskip("tensorboard")
    run(lines_for("TensorBoard"), report=report)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "runs"))
    events.Reload()
    texts = {
        tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]
    }
    assert "exp at" in texts["nanhunt/text_summary"]
    assert "NH001" in texts["nanhunt/check/text_summary"]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_the_report_as_an_artifact(
    tmp_path: Path, report: nanhunt.Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    run(lines_for("MLflow"), report=report)
    (found,) = mlflow.search_runs(output_format="list")
    assert found.data.tags["nanhunt"].startswith("the loss is")
    kept = mlflow.artifacts.load_text(f"runs:/{found.info.run_id}/nanhunt/step-1.txt")
    assert "exp at" in kept
    assert "NH001" in mlflow.artifacts.load_text(f"runs:/{found.info.run_id}/nanhunt/check.txt")


@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_the_finding_and_raises_an_alert(
    tmp_path: Path, report: nanhunt.Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run(lines_for("W&B"), report=report)
    written = b"".join(path.read_bytes() for path in tmp_path.glob("wandb/**/*.wandb"))
    assert b"the loss is" in written
    assert b"NH001" in written
