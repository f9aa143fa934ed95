"""Runs written by the writers' own code, with a NaN planted at a known step, rank and layer: it is found there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import nanhunt
from nanhunt.load.checkpoints import checkpoints
from nanhunt.render import render
from nanhunt.results.report import Report
from nanhunt.results.series import Beginning, beginnings, runs
from nanhunt.scan.last_good import last_good

# Those of the libraries are none of ours.
pytestmark = pytest.mark.filterwarnings("ignore")
STEPS = (10, 20, 30, 40)
BAD = 30


class Net(torch.nn.Module):
    """Four layers, and a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: torch.Tensor, labels: Any = None) -> dict[str, torch.Tensor]:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return {"loss": x.square().mean()}

    def plant(self) -> None:
        """A NaN in the weight of layer 2."""
        with torch.no_grad():
            self.layers[2].weight[1, 3] = torch.nan


def beginning(run: Path) -> tuple[Report, Beginning]:
    report = nanhunt.check(run)
    (began,) = beginnings(report)
    return report, began


def good(run: Path) -> str:
    checkpoint = last_good(checkpoints(str(run))).checkpoint
    assert checkpoint is not None
    return Path(checkpoint.paths[0]).name


def test_transformers_trainer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Planting(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step == BAD:
                model.plant()

    arguments = transformers.TrainingArguments(
        str(tmp_path), per_device_train_batch_size=1, max_steps=40, save_steps=10, use_cpu=True, report_to=[],
        disable_tqdm=True, logging_steps=10, logging_nan_inf_filter=False, remove_unused_columns=False,
    )  # fmt: skip
    data = [{"x": torch.ones(4), "labels": torch.ones(1)}] * 40
    transformers.Trainer(Net(), arguments, train_dataset=data, callbacks=[Planting()]).train()
    report, began = beginning(tmp_path)
    assert (began.step, began.clean_step, began.tensor) == (BAD, 20, "layers.2.weight")
    assert (began.bad_tensors, began.message) == (1, "1 NaN of 16 values, the first at [1, 3]")
    words = " ".join(render(report, "text", width=400).split())
    assert (
        f"last good: {tmp_path}/checkpoint-20, first bad: {tmp_path}/checkpoint-30 (model 1 of 8 tensors)"
        in words
    )
    assert "trainer_state.json says: loss " in words
    assert "nan at step 40" in words
    assert good(tmp_path) == "checkpoint-20"


def test_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
            return self.net(batch)["loss"]

        def on_train_batch_start(self, *_: Any) -> None:
            if self.global_step == BAD - 1:
                self.net.plant()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    saving = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=10, save_top_k=-1)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    trainer = lightning.Trainer(max_steps=40, callbacks=[saving], **quiet)
    trainer.fit(Module(), torch.utils.data.DataLoader(torch.ones(40, 4)))
    _, began = beginning(tmp_path)
    assert (began.step, began.clean_step) == (BAD, 20)
    assert (Path(began.path).name, good(tmp_path)) == ("epoch=0-step=30.ckpt", "epoch=0-step=20.ckpt")


def test_torch_distributed_checkpoint(tmp_path: Path) -> None:
    from torch.distributed.checkpoint import save

    for step in STEPS:
        net = Net()
        if step >= BAD:
            net.plant()
        save({"model": net.state_dict()}, checkpoint_id=tmp_path / f"step-{step}", no_dist=True)
    _, began = beginning(tmp_path)
    assert (began.step, began.clean_step, began.tensor) == (BAD, 20, "model.layers.2.weight")
    assert (began.bad_tensors, began.tensors, good(tmp_path)) == (1, 8, "step-20")


def test_accelerate(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    net = Net()
    net, optimizer = accelerator.prepare(net, torch.optim.Adam(net.parameters()))
    for step in STEPS:
        accelerator.backward(net(torch.ones(2, 4))["loss"])
        optimizer.step()
        if step == BAD:
            net.plant()
        accelerator.save_state(str(tmp_path / f"step_{step}"))
    _, began = beginning(tmp_path)
    assert (began.step, began.clean_step, began.tensor) == (BAD, 20, "layers.2.weight")
    assert good(tmp_path) == "step_20"


def test_deepspeeds_layout(tmp_path: Path) -> None:
    for step in STEPS:
        folder = tmp_path / f"global_step{step}"
        folder.mkdir()
        torch.save({"module": Net().state_dict()}, folder / "mp_rank_00_model_states.pt")
        for rank in range(4):
            master = torch.ones(16)
            if step >= BAD and rank == 3:
                master[5] = torch.inf
            state = {"optimizer_state_dict": {"fp32_flat_groups": [master]}}
            torch.save(state, folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    report, began = beginning(tmp_path)
    assert (began.step, began.ranks, began.tensors, began.bad_tensors) == (BAD, ("dp 3 tp 0",), 12, 1)
    assert began.tensor == "optimizer_state_dict.fp32_flat_groups.0"
    assert runs(report)[0].ranks == ("dp 0 tp 0", "dp 1 tp 0", "dp 2 tp 0", "dp 3 tp 0")
    assert good(tmp_path) == "global_step20"


def test_transformers_debugger(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    debugging = pytest.importorskip("transformers.model_debugging_utils")
    for step in (1, 2):
        net = Net()
        if step == 2:
            net.plant()
        folder = tmp_path / f"step_{step}"
        with (
            torch.no_grad(),
            debugging.model_addition_debugger_context(
                net, debug_path=str(folder), do_prune_layers=False, use_repr=False
            ),
        ):
            net(torch.ones(2, 4))
    report, began = beginning(tmp_path)
    assert (began.step, began.clean_step) == (2, 1)
    assert Path(began.file).name.startswith("Net.layers.2_outputs")
    assert {tensor.role for tensor in report.tensors} == {"values"}
    assert began.made == "producer"
