"""Checkpoints of torch before 0.1.10, as torch.load still reads them."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nanhunt.load import open_path

VALUES = np.array([1, 2, np.nan, 4, 5, 6], np.float32)


class _Pickler(pickle.Pickler):
    """Refers to tensors by number, as torch.save did."""

    def persistent_id(self, item: Any) -> Any:
        return str(item) if isinstance(item, _Number) else None


class _Number(int): ...


def pickles(*items: Any) -> bytes:
    return b"".join(pickle.dumps(item, 2) for item in items)


def write(path: Path, storages: bytes, tensors: bytes, content: Any) -> str:
    stream = io.BytesIO()
    _Pickler(stream, 2).dump(content)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in (
            ("sys_info", b""),
            ("pickle", stream.getvalue()),
            ("tensors", tensors),
            ("storages", storages),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


STORAGES = (
    pickles(1, (7, "cpu", torch.FloatStorage))
    + struct.pack("<q", 6)
    + VALUES.tobytes()
    + pickles([(8, 7, 2, 4)])
)
"""One storage, and a part of it as another."""
TENSORS = (
    pickles(2, (10, 7, torch.FloatTensor)) + struct.pack("<2i5q", 2, 0, 3, 2, 1, 3, 0)
    + pickles((11, 8, torch.FloatTensor)) + struct.pack("<2i3q", 1, 0, 3, 1, 1)
)  # fmt: skip
"""A transposed matrix, and a vector in the part."""


def test_tensors_are_those_that_torch_loads(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pt", STORAGES, TENSORS, {"model": {"w": _Number(10)}, "b": [_Number(11)]})
    expected = torch.load(path, weights_only=False)
    container = open_path(path)
    assert container.format == "pt-tar"
    assert list(container.tensors) == ["model.w", "b.0"]
    np.testing.assert_array_equal(container.tensors["model.w"].data, expected["model"]["w"].numpy())
    np.testing.assert_array_equal(container.tensors["b.0"].data, expected["b"][0].numpy())


@pytest.mark.parametrize(
    ("storages", "tensors"),
    [
        (STORAGES[:40], TENSORS),
        (STORAGES, TENSORS[:60]),
        (STORAGES.replace(struct.pack("<q", 6), struct.pack("<q", 1 << 40)), TENSORS),
        (STORAGES.replace(struct.pack("<q", 6), struct.pack("<q", -6)), TENSORS),
        (pickles(1 << 50), TENSORS),
        (pickles(-1), TENSORS),
        (STORAGES, TENSORS.replace(struct.pack("<2i", 2, 0), struct.pack("<2i", 1 << 30, 0))),
        (
            STORAGES,
            TENSORS.replace(
                struct.pack("<2i5q", 2, 0, 3, 2, 1, 3, 0), struct.pack("<2i5q", 2, 0, 9, 9, 9, 9, 9)
            ),
        ),
        (STORAGES[: -len(pickles([(8, 7, 2, 4)]))] + pickles([(8, 7, 2, 5)]), TENSORS),
    ],
)
def test_what_is_damaged_is_refused(tmp_path: Path, refusal, storages: bytes, tensors: bytes) -> None:
    refusal(write(tmp_path / "x.pt", storages, tensors, {"w": _Number(10), "b": _Number(11)}))


def test_other_tar_archives_are_named(tmp_path: Path, refusal) -> None:
    with tarfile.open(tmp_path / "x.nemo", "w") as archive:
        archive.addfile(tarfile.TarInfo("weights"))
    assert "tar archive" in refusal(tmp_path / "x.nemo").message
