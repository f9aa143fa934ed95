"""The callbacks in the trainers that they are for: real runs that go bad at a known step, with rotation on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import nanhunt
from nanhunt.load.checkpoints import checkpoints
from nanhunt.scan.last_good import last_good

# Those of the libraries are none of ours.
pytestmark = pytest.mark.filterwarnings("ignore")


class Net(torch.nn.Module):
    """Goes bad in the forward pass of one step and stays so."""

    def __init__(self, bad_at: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.calls, self.bad_at = 0, bad_at

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        self.calls += 1
        loss = self.layer(x).square().mean()
        return {"loss": loss * torch.nan if self.calls >= self.bad_at else loss}


def good_step(run: Path) -> int | None:
    checkpoint = last_good(checkpoints(str(run))).checkpoint
    return checkpoint and checkpoint.step


def transformers_run(run: Path, callbacks: list[Any]) -> list[int]:
    """Steps of the checkpoints that are left of 12 steps, saved every 2nd, bad from the 7th on, one kept."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    data = [{"x": torch.ones(2), "labels": torch.ones(1)}] * 12
    arguments = transformers.TrainingArguments(
        str(run), per_device_train_batch_size=1, max_steps=12, save_steps=2, save_total_limit=1, use_cpu=True,
        report_to=[], disable_tqdm=True, logging_steps=2, max_grad_norm=0.0, remove_unused_columns=False,
    )  # fmt: skip
    transformers.Trainer(Net(bad_at=7), arguments, train_dataset=data, callbacks=callbacks).train()
    return [each.step for each in checkpoints(str(run))]


def test_without_a_guard_the_trainer_rotates_the_good_one_away(tmp_path: Path) -> None:
    assert transformers_run(tmp_path, []) == [12]
    assert good_step(tmp_path) is None


def test_the_trainers_guard_refuses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("transformers")
    with caplog.at_level(logging.WARNING, "nanhunt.guard"):
        assert transformers_run(tmp_path, [nanhunt.guard.TrainerGuard()]) == [6]
    assert good_step(tmp_path) == 6
    assert "step 8: checkpoint not saved: layer.weight: 2 NaN of 2 values" in caplog.text


def test_the_trainers_guard_marks(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    assert transformers_run(tmp_path, [nanhunt.guard.TrainerGuard("mark")]) == [6, 8, 10, 12]
    assert good_step(tmp_path) == 6
    assert "layer.weight: 2 NaN" in (tmp_path / "checkpoint-8" / "NANHUNT_BAD").read_text()


def lightning_run(run: Path, on_bad: str = "") -> list[int]:
    """The same in Lightning, with a guard where there is something to do."""
    lightning = pytest.importorskip("lightning")
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(bad_at=7)

        def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
            return self.net(batch)["loss"]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    given = {
        "dirpath": run,
        "every_n_train_steps": 2,
        "save_top_k": 1,
        "filename": "{step}",
        "save_last": True,
    }
    saving = nanhunt.guard.LightningGuard(on_bad=on_bad, **given) if on_bad else ModelCheckpoint(**given)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    trainer = lightning.Trainer(max_steps=12, callbacks=[saving], **quiet)
    trainer.fit(Module(), torch.utils.data.DataLoader(torch.ones(12, 2)))
    return [each.step for each in checkpoints(str(run))]


@pytest.mark.parametrize(("on_bad", "kept"), [("refuse", [6]), ("mark", [6, 8, 10, 12])])
def test_lightnings_guard_refuses_or_marks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, on_bad: Any, kept: list[int]
) -> None:
    assert lightning_run(tmp_path / "bare") == [12]
    with caplog.at_level(logging.WARNING, "nanhunt.guard"):
        assert lightning_run(tmp_path / "guarded", on_bad) == kept
    assert [record.args[0] for record in caplog.records if record.args] == [8, 10, 12]  # once each
    assert good_step(tmp_path / "guarded") == 6
    marks = [path.name for path in (tmp_path / "guarded").glob("*NANHUNT_BAD")]
    assert sorted(marks) == sorted(f"step={step}.ckpt.NANHUNT_BAD" for step in kept[1:])
    last = torch.load(tmp_path / "guarded" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 6
