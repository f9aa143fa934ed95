"""Series of small checkpoints as real trainers lay them out, with a NaN planted from one step on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file


def weights(bad: bool = False, layers: int = 3) -> dict[str, torch.Tensor]:
    """A few layers; the NaN is in the middle one, at [1, 2]."""
    found = {f"model.layers.{n}.mlp.weight": torch.full((4, 4), n + 0.5) for n in range(layers)}
    if bad:
        found[f"model.layers.{layers // 2}.mlp.weight"][1, 2] = torch.nan
    return found


def moments(bad: bool = False) -> dict[str, Any]:
    """As torch's Adam keeps them."""
    state = {n: {"step": torch.tensor(3.0), "exp_avg": torch.full((4, 4), 0.25)} for n in range(3)}
    if bad:
        state[1]["exp_avg"][0, 0] = torch.inf
    return {"state": state, "param_groups": [{"lr": 1e-3, "params": [0, 1, 2]}]}


def trainer(run: Path, steps: Iterable[int], bad_from: float = np.inf) -> None:
    """Transformers' Trainer."""
    for step in steps:
        folder = run / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        save_file(weights(step >= bad_from), folder / "model.safetensors")
        torch.save(moments(step >= bad_from), folder / "optimizer.pt")
        torch.save({"cpu": torch.zeros(8, dtype=torch.uint8)}, folder / "rng_state.pth")
        (folder / "trainer_state.json").write_text('{"log_history": []}')


def deepspeed(run: Path, steps: Iterable[int], ranks: int = 4) -> None:
    """ZeRO: the model once, the optimizer's state once a data-parallel rank."""
    for step in steps:
        folder = run / f"global_step{step}"
        folder.mkdir(parents=True)
        torch.save({"module": weights()}, folder / "mp_rank_00_model_states.pt")
        for rank in range(ranks):
            flat = {"optimizer_state_dict": {"fp32_flat_groups": [torch.ones(8)]}}
            torch.save(flat, folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")


def lightning(run: Path, steps: Iterable[int], bad_from: float = np.inf) -> None:
    """A file a checkpoint."""
    run.mkdir(parents=True)
    for step in steps:
        bad = step >= bad_from
        content = {"state_dict": weights(bad), "optimizer_states": [moments(bad)], "global_step": step}
        torch.save(content, run / f"epoch={step // 10}-step={step}.ckpt")


@contextmanager
def opened_files(run: Path) -> Iterator[set[str]]:
    """The files below a folder that are opened meanwhile."""
    seen: set[str] = set()
    opened = Path.open

    def noting(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.is_relative_to(run):
            seen.add(str(path.relative_to(run)))
        return opened(path, *args, **kwargs)

    with mock.patch.object(Path, "open", noting):
        yield seen
