from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

SCRIPT = """
import sys
import nanhunt.load
for path in sys.argv[1:]:
    for tensor in nanhunt.load.open_path(path).tensors.values():
        tensor.data.max()
print(*(name for name in ("torch", "safetensors", "ml_dtypes", "zipfile") if name in sys.modules))
"""


def imported(*paths) -> list[str]:
    command = [sys.executable, "-c", SCRIPT, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()


def test_importing_the_package_imports_numpy_alone():
    assert imported() == []


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.safetensors"])
def test_only_checkpoints_import_torch(tmp_path, name):
    values = np.ones((3, 4), np.float32)
    writers = {
        "x.npy": lambda path: np.save(path, values),
        "x.npz": lambda path: np.savez_compressed(path, logits=values),
        "x.safetensors": lambda path: save_file({"w": torch.ones(3, dtype=torch.bfloat16)}, path),
    }
    writers[name](tmp_path / name)
    assert set(imported(tmp_path / name)) <= {"zipfile"}
