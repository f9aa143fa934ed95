"""Folders as transformers' Trainer, Lightning and accelerate write them: healthy is green, one NaN anywhere is red.

Built from their recorded structure (transformers 4.57, lightning 2.6, accelerate 1.12); the benchmark
real_checkpoint_trees.py does the same with the packages themselves.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planting import Keys, places, planted
from safetensors.torch import save_file

import nanhunt

INF = float("inf")
Tree = dict[str, Any]


def adam(parameters: list[torch.Tensor]) -> dict[str, Any]:
    """AdamW's state_dict."""
    state = {
        index: {"step": torch.tensor(2.0), "exp_avg": each * 0.1, "exp_avg_sq": each.square()}
        for index, each in enumerate(parameters)
    }
    group = {
        "lr": 5e-05, "betas": (0.9, 0.999), "eps": 1e-08, "weight_decay": 0.01, "amsgrad": False, "foreach": None,
        "initial_lr": 5e-05, "params": list(range(len(parameters))),
    }  # fmt: skip
    return {"state": state, "param_groups": [group]}


PARAMETERS = {
    "wte.weight": torch.linspace(-1, 1, 12).reshape(4, 3),
    "ln.bias": torch.zeros(3, dtype=torch.bfloat16),
}
BUFFERS = {"bn.running_mean": torch.zeros(3), "bn.running_var": torch.ones(3), "rope.inv_freq": torch.ones(2)}
MODEL = {**PARAMETERS, **BUFFERS}
RANDOM = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
SCHEDULER = {
    "base_lrs": [5e-05],
    "last_epoch": 2,
    "_step_count": 3,
    "_last_lr": [2.5e-05],
    "lr_lambdas": [{}],
}
TRAINER: Tree = {
    "checkpoint-2/model.safetensors": MODEL,
    "checkpoint-2/optimizer.pt": adam([each.float() for each in PARAMETERS.values()]),
    "checkpoint-2/scheduler.pt": SCHEDULER,
    "checkpoint-2/scaler.pt": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0},
    "checkpoint-2/rng_state.pth": RANDOM,
    "checkpoint-2/training_args.bin": argparse.Namespace(device=torch.device("cpu"), output_dir="x"),
    "checkpoint-2/trainer_state.json": {"log_history": [{"loss": 3.4}]},
    "checkpoint-2/config.json": {"n_layer": 1},
}
ACCELERATE: Tree = {
    "model.safetensors": MODEL,
    "optimizer.bin": adam(list(PARAMETERS.values())),
    "scheduler.bin": SCHEDULER,
    "random_states_0.pkl": {"step": 0, "random_state": random.getstate(), "torch_manual_seed": RANDOM["cpu"]},
    "custom_checkpoint_0.pkl": {
        "shadow": np.arange(4.0).reshape(2, 2), "gain": np.float64(2),
        "filter": torch.ones(2, dtype=torch.complex64),
    },
}  # fmt: skip
LIGHTNING: Tree = {
    "epoch=1-step=8.ckpt": {
        "epoch": 1,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {"mask": torch.full((6, 6), -INF).triu(1), **MODEL},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 2}}}},
        "callbacks": {
            "EarlyStopping{'monitor': 'loss', 'mode': 'min'}": {
                "wait_count": 0, "patience": 3, "best_score": torch.tensor(INF),
            },
            "ModelCheckpoint{'monitor': None, 'mode': 'min'}": {
                "best_model_score": None, "best_k_models": {}, "kth_best_model_path": "",
                "kth_value": torch.tensor(INF),
            },
            "WeightAveraging": {"average_model_state": dict(MODEL)},
        },
        "optimizer_states": [adam(list(PARAMETERS.values()))],
        "lr_schedulers": [{"factor": 0.1, "min_lrs": [0.0], "best": INF, "mode_worse": INF, "_last_lr": [0.001]}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"width": 3},
    }
}  # fmt: skip
MASTERS: Tree = {
    "global_step2/mp_rank_00_model_states.pt": {"module": MODEL, "dtype": torch.bfloat16, "global_steps": 2},
    "global_step2/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt": {
        "optimizer_state_dict": {
            "zero_stage": 2, "partition_count": 1, "clip_grad": 1.0,
            "single_partition_of_fp32_groups": [torch.linspace(-1, 1, 15)],
            "base_optimizer_state": adam([torch.linspace(-1, 1, 15)]),
        },
    },
}  # fmt: skip
"""As DeepSpeed writes below the Trainer and accelerate: master weights in float32 and their moments."""
TREES = {"trainer": TRAINER, "accelerate": ACCELERATE, "lightning": LIGHTNING, "masters": MASTERS}


def write(folder: Path, tree: Tree) -> str:
    """The tree's files, as their writers write them."""
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            path.write_text(json.dumps(content))
        elif path.suffix == ".safetensors":
            save_file(content, path, metadata={"format": "pt"})
        else:
            torch.save(content, path)
    return str(folder)


@pytest.mark.parametrize("name", TREES)
def test_a_healthy_folder_is_green(tmp_path: Path, name: str) -> None:
    report = nanhunt.check(write(tmp_path, TREES[name]))
    assert (report.exit_code, report.errors, report.findings) == (0, (), ())
    passed = {Path(part.file).name: part.what for part in report.not_looked_at}
    names = {Path(file).name for file in TREES[name] if file.endswith(".json")}
    json_files = dict.fromkeys(names - {"trainer_state.json"}, "JSON")  # the log is read
    none = "no floating-point numbers"
    others = {"training_args.bin": none} if name == "trainer" else {}
    others |= {"random_states_0.pkl": none} if name == "accelerate" else {}
    assert passed == json_files | others


def faults() -> list[Any]:
    """Every (tree, file, keys) that holds numbers a training goes on with."""
    return [
        pytest.param(name, file, keys, id=f"{file}:{'.'.join(map(str, keys))}")
        for name, tree in TREES.items()
        for file, content in tree.items()
        if not file.endswith(".json")
        for keys in places(content)
        if keys[-1] not in ("best_score", "kth_value", "best", "mode_worse")
    ]


@pytest.mark.parametrize(("name", "file", "keys"), faults())
def test_one_nan_is_red_at_the_right_tensor(tmp_path: Path, name: str, file: str, keys: Keys) -> None:
    tree = TREES[name] | {file: planted(TREES[name][file], keys)}
    report = nanhunt.check(write(tmp_path, tree))
    assert report.exit_code == 1
    (bad,) = [tensor for tensor in report.tensors if tensor.findings]
    assert bad.file.endswith(file)
    # A list of Python numbers is one tensor.
    assert bad.tensor in (".".join(map(str, keys)), ".".join(map(str, keys[:-1])))
    assert [finding.severity for finding in bad.findings] == ["error"]
