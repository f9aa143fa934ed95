"""Folders that transformers' Trainer, Lightning and accelerate write: healthy is green, one NaN anywhere is red.

Run by hand, since the packages are no dependencies of the tests: ``python tests/benchmarks/real_checkpoint_trees.py``
with any of transformers, lightning and accelerate installed. Prints a line a package; exits with 1 on a miss or a
false alarm.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import nanhunt

sys.path.insert(0, str(Path(__file__).parents[1] / "load"))
from planting import places, planted

BOOKKEEPING = ("best_score", "kth_value", "best", "mode_worse", "best_model_score", "current_score")


def trainer(folder: str) -> None:
    """Two steps of a tiny GPT-2, saved after each."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50, n_positions=16))
    ids = [torch.randint(0, 50, (8,)) for _ in range(8)]
    arguments = TrainingArguments(
        folder, max_steps=2, save_steps=1, report_to=[], use_cpu=True, disable_tqdm=True,
        logging_strategy="no", per_device_train_batch_size=2,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=[{"input_ids": each, "labels": each} for each in ids]).train()


def lightning(folder: str) -> None:
    """Two epochs with a causal mask as a buffer, a plateau scheduler and two kinds of saved bests."""
    import lightning as pl
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 3)
            self.register_buffer("mask", torch.full((6, 6), float("-inf")).triu(1))

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            loss = torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> dict[str, object]:
            optimizer = torch.optim.AdamW(self.parameters())
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "loss"}}

    data = torch.utils.data.TensorDataset(torch.randn(8, 4), torch.randint(0, 3, (8,)))
    saves = [
        ModelCheckpoint(folder, save_top_k=-1),
        ModelCheckpoint(f"{folder}/best", monitor="loss", save_top_k=3),
        EarlyStopping("loss"),
    ]
    pl.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=saves, logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    ).fit(Module(), torch.utils.data.DataLoader(data, batch_size=2))  # fmt: skip


def accelerate(folder: str) -> None:
    """``save_state`` after four steps."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 4)), batch_size=2)
    model, optimizer, scheduler, data = accelerator.prepare(model, optimizer, scheduler, data)
    for (batch,) in data:
        accelerator.backward(model(batch).square().sum())
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    accelerator.save_state(folder)


def misses(folder: str) -> tuple[list[str], int]:
    """(places whose NaN was not told at the right tensor, or was told elsewhere; places tried)."""
    missed: list[str] = []
    tried = 0
    for path in sorted(each for each in Path(folder).rglob("*") if each.suffix not in ("", ".json")):
        weights = path.suffix == ".safetensors"
        content = load_file(path) if weights else torch.load(path, weights_only=False)
        kept = path.read_bytes()
        for keys in places(content):
            if keys[-1] in BOOKKEEPING or "best_k_models" in keys:
                continue
            tried += 1
            spoilt = planted(content, keys)
            save_file(spoilt, path) if weights else torch.save(spoilt, path)
            report = nanhunt.check(folder)
            names = {".".join(map(str, keys)), ".".join(map(str, keys[:-1]))}
            bad = [(each.file, each.tensor) for each in report.tensors if each.findings]
            if report.exit_code != 1 or len(bad) != 1 or bad[0][0] != str(path) or bad[0][1] not in names:
                missed.append(f"{path}: {'.'.join(map(str, keys))}: {bad}")
        path.write_bytes(kept)
    return missed, tried


def main() -> int:
    """A line a package."""
    warnings.simplefilter("ignore")
    failed = 0
    writers: dict[str, Callable[[str], None]] = {
        "transformers": trainer, "lightning": lightning, "accelerate": accelerate
    }  # fmt: skip
    for name, write in writers.items():
        if importlib.util.find_spec(name) is None:
            print(f"{name}: not installed")
            continue
        folder = tempfile.mkdtemp()
        write(folder)
        healthy = nanhunt.check(folder)
        missed, tried = misses(folder)
        print(
            f"{name}: healthy exit {healthy.exit_code}, {tried} NaNs planted, {len(missed)} missed", *missed
        )
        failed += len(missed) + healthy.exit_code
        shutil.rmtree(folder)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
