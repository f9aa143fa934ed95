"""Damaged files of every format: a Tensor or a NanhuntError, never another exception, and nothing is executed."""

from __future__ import annotations

import io
import pickle
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seeds import SMALL, field, packaged, torch_bytes

import nanhunt
from nanhunt.errors import NanhuntError
from nanhunt.load import extras, open_path

PACKAGED = packaged()


def extent(array: np.ndarray) -> int:
    """Bytes from the first value to the last; a view may repeat them."""
    steps = zip(array.shape, array.strides, strict=True)
    return array.itemsize + sum((size - 1) * stride for size, stride in steps) if array.size else 0


def outcome(folder: Path, content: bytes, slack: int = 0) -> str:
    """What opening and reading gives; any exception but NanhuntError goes through and fails the test."""
    path = folder / "file"
    path.write_bytes(content)
    (folder / "shard").write_bytes(SMALL["safetensors"])
    try:
        container = open_path(str(path))
        for tensor in container.tensors.values():
            assert tensor.data.shape == tensor.shape
            # What is handed out lies in the file (or in a shard), plain or packed: nothing absurd was allocated.
            assert extent(tensor.data) <= 1032 * (len(content) + 4096) + slack
            _ = tensor.data.tobytes() if tensor.data.size < 1 << 20 else None
    except NanhuntError as error:
        assert error.message.isprintable()
        assert error.hint.isprintable()
        return "refused"
    return "read"


@pytest.mark.parametrize("name", SMALL)
def test_undamaged(tmp_path, name):
    assert outcome(tmp_path, SMALL[name]) == "read"


@pytest.mark.parametrize("name", SMALL)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_flipped_bytes(name, data):
    content = bytearray(SMALL[name])
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        content[place] = value
    with tempfile.TemporaryDirectory() as folder:
        outcome(Path(folder), bytes(content))


@pytest.mark.parametrize("name", SMALL)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_truncations_and_insertions(name, data):
    content = SMALL[name]
    cut = data.draw(st.integers(1, len(content) - 1))
    inserted = data.draw(st.binary(max_size=9))
    with tempfile.TemporaryDirectory() as folder:
        outcome(Path(folder), content[:cut])
        outcome(Path(folder), content[:cut] + inserted + content[cut:])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PACKAGED)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_whatever_packages_raise_becomes_one_error(name, data):
    content = bytearray(PACKAGED[name])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(content), len(content) // 2, len(content) - 9]))
    with tempfile.TemporaryDirectory() as folder:
        outcome(Path(folder), bytes(content[:cut]), extras.SLACK)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damaged_pickles_inside_a_whole_zip(data):
    """Past the checksums: what somebody writes who means harm."""
    with zipfile.ZipFile(io.BytesIO(SMALL["pt"])) as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    name = next(name for name in entries if name.endswith("data.pkl"))
    pickled = bytearray(entries[name])
    for _ in range(data.draw(st.integers(1, 3))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for other, content in entries.items():
            archive.writestr(other, bytes(pickled) if other == name else content)
    with tempfile.TemporaryDirectory() as folder:
        outcome(Path(folder), stream.getvalue())


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_nothing_is_executed_however_it_is_damaged(data):
    with tempfile.TemporaryDirectory() as folder:
        ran = Path(folder) / "ran"
        content = {"w": torch.ones(2), "bomb": Bomb(ran)}
        legacy = torch_bytes(content, _use_new_zipfile_serialization=False)
        made = st.sampled_from([torch_bytes(content), legacy, pickle.dumps(content["bomb"])])
        damaged = bytearray(data.draw(made))
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        outcome(Path(folder), bytes(damaged))
        assert not ran.exists()


@pytest.mark.parametrize(("kind", "number", "data"), [(10, 5, b"\x01\x80"), (1, 4, b"\x00\x00\x80\x3f\x00")])
def test_a_number_of_an_onnx_model_that_is_cut_off(
    tmp_path: Path, kind: int, number: int, data: bytes
) -> None:
    typed = field(1, bytes([len(data)])) + field(2, kind) + field(number, data) + field(8, b"h")
    (tmp_path / "m.onnx").write_bytes(field(1, 8) + field(2, b"pytorch") + field(7, field(5, typed)))
    report = nanhunt.check(tmp_path / "m.onnx")
    assert "a number is cut off" in report.errors[0].message
