"""Files that a format's own library refuses: which of them are read all the same, and why. See .github/SECURITY.md."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load as library_of_safetensors
from seeds import SMALL, VALUES

from nanhunt.load import open_path


def safetensors(entries: dict[str, object], body: bytes) -> bytes:
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + body


def entry(begin: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": [3, 4], "data_offsets": [begin, begin + 48]}


def load_pt(content: bytes) -> object:
    return torch.load(io.BytesIO(content), weights_only=True)


def damaged_record() -> bytes:
    """A .pt whose record ``.format_version`` has lost its first byte; the table of contents is whole."""
    content = bytearray(SMALL["pt"])
    name = content.index(b".format_version")
    content[content.rindex(b"PK\x03\x04", 0, name)] = 0
    return bytes(content)


READ: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    # The numbers are where the header says; what lies between is nobody's.
    "a gap in .safetensors": (library_of_safetensors, safetensors({"a": entry(4)}, bytes(4) + VALUES.tobytes())),
    "bytes behind .safetensors": (library_of_safetensors, safetensors({"a": entry(0)}, VALUES.tobytes() + b"more")),
    # One tensor that cannot be judged is told; the others are looked at.
    "an unknown dtype beside others": (
        library_of_safetensors, safetensors({"a": entry(0), "b": entry(48, "BB16")}, VALUES.tobytes() * 2),
    ),
    # The header is padded with spaces; Python's literals allow other white space.
    "white space of a .npy": (
        lambda content: np.load(io.BytesIO(content)), SMALL["npy"].replace(b"}  ", b"}\x1c ", 1),
    ),
    # A record that says how torch wrote the file: no number of the checkpoint is in it.
    "a damaged record of a .pt": (load_pt, damaged_record()),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_numbers_that_are_there_are_read(tmp_path: Path, name: str) -> None:
    library, content = READ[name]
    with pytest.raises(Exception, match=r"header|metadata|offset|archive"):
        library(content)
    (tmp_path / "x").write_bytes(content)
    tensors = open_path(str(tmp_path / "x")).tensors
    expected = np.ones((3, 4)) if name.endswith(".pt") else VALUES
    np.testing.assert_array_equal(tensors["" if "npy" in name else "a"].data, expected)


def test_a_version_that_nobody_knows_is_not_guessed(tmp_path: Path, refusal) -> None:
    content = bytearray(SMALL["npy"])
    content[7] = 9
    with pytest.raises(ValueError, match="version"):
        np.load(io.BytesIO(content))
    (tmp_path / "x.npy").write_bytes(content)
    assert "version 1.9" in refusal(str(tmp_path / "x.npy")).message
