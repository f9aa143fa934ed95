"""Memory of mapped values is given back, and nothing that somebody has written is lost with it."""

from __future__ import annotations

import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import nanhunt
from nanhunt.load import open_path
from nanhunt.load.arrays import release
from nanhunt.load.shards import Shard

STATUS = Path("/proc/self/statm")
MIB = 1 << 20


def resident() -> int:
    """Bytes of this process that are pages of files."""
    return int(STATUS.read_text().split()[2]) * mmap.PAGESIZE


@pytest.mark.skipif(not STATUS.exists(), reason="Linux tells what is resident")
@pytest.mark.parametrize("kind", ["one file", "as torch lays it out", "shards"])
def test_what_was_read_is_given_back_and_read_again_when_asked_for(tmp_path: Path, kind: str) -> None:
    values = np.arange(8 * MIB, dtype=np.float32)
    if kind == "as torch lays it out":
        torch.save({"w": torch.from_numpy(values)}, tmp_path / "a")
    else:
        save_file({"odd": np.zeros(3, np.int8), "w": values}, tmp_path / "a")
    tensor = open_path(str(tmp_path / "a")).tensors["w"]
    if kind == "shards":
        halves = Shard((0,), tensor.data[: 4 * MIB]), Shard((4 * MIB,), tensor.data[4 * MIB :])
        tensor = replace(tensor, pieces=lambda: halves)
    before = resident()
    read = tensor.flat(0, values.size)
    assert np.array_equal(read, values)
    assert resident() - before > 24 * MIB
    tensor.release(read)
    assert resident() - before < 4 * MIB
    assert np.array_equal(read, values)


def test_arrays_of_the_user_keep_what_was_written_to_them(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(MIB, np.float32))
    mine = np.load(tmp_path / "a.npy", mmap_mode="c")
    mine[:] = 1
    assert not nanhunt.diff(mine, tmp_path / "a.npy").ok
    assert (mine == 1).all()


@pytest.mark.parametrize("values", [np.ones(5), np.ones((4, 4))[:, 1], np.empty(0), 3.0, np.float32(1)])
def test_what_is_not_mapped_stays_as_it_is(values) -> None:
    release(values)
    assert (np.asarray(values) == values).all()
