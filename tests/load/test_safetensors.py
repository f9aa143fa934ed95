from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nanhunt.errors import NanhuntError
from nanhunt.load import open_path
from nanhunt.load.tensor import BITS, FLOATING, INTEGER


@pytest.mark.parametrize("dtype", [*FLOATING, *INTEGER])
def test_every_dtype_has_the_bits_that_were_written(tmp_path, dtype):
    values = (torch.arange(12).reshape(3, 4) % 5).to(getattr(torch, dtype))
    path = str(tmp_path / "x.safetensors")
    save_file({"layer.weight": values}, path)
    tensor = open_path(path).tensors["layer.weight"]
    assert (tensor.dtype, tensor.shape) == (dtype, (3, 4))
    bits = values.view(getattr(torch, BITS[dtype])) if dtype in BITS else values
    np.testing.assert_array_equal(tensor.data, bits.numpy())
    assert tensor.data.dtype == bits.numpy().dtype


def test_scalars_empty_tensors_and_metadata(tmp_path):
    path = str(tmp_path / "x.safetensors")
    tensors = {
        "a": torch.ones(3),
        "empty": torch.ones(0, 5),
        "scalar": torch.tensor(2.0),
        "z": torch.zeros(2),
    }
    save_file(tensors, path, metadata={"format": "pt"})
    container = open_path(path)
    assert container.format == "safetensors"
    assert set(container.tensors) == set(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(container.tensors[name].data, values.numpy())
        assert container.tensors[name].shape == tuple(values.shape)


def written(path, header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"a": entry([4], 0, 16), "b": entry([4], 8, 24)}, "overlaps"),
        ({"a": entry([4], 0, 1 << 40)}, "truncated"),
        ({"a": entry([1 << 40], 0, 16)}, "in 16 bytes"),
        ({"a": entry([1 << 62, 1 << 62], 0, 16)}, "in 16 bytes"),
        ({"a": entry([0, 1 << 62], 0, 0)}, "in 0 bytes"),
        ({"a": entry([-4], 0, 16)}, "does not describe a"),
        ({"a": entry([4.0], 0, 16)}, "does not describe a"),
        ({"a": entry([4], 16, 0)}, "overlaps"),
        ({"a": {"dtype": "F32", "shape": [4]}}, "does not describe a"),
        ({"a": None}, "does not describe a"),
        ({"\x1b[31m": None}, "does not describe \\x1b[31m"),
        (b'{"a":1,"a":2}', "a name occurs twice"),
        (b'{"a":', "not valid JSON"),
        (b'{"\xff":1}', "not valid JSON"),
        (b"{" + b'"a":[' * 100_000, "not valid JSON"),
        (b'{"a":' + b"1" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_headers_that_do_not_describe_the_file(tmp_path, refusal, header, says):
    assert says in refusal(written(tmp_path / "x.safetensors", header, bytes(32))).message


@pytest.mark.parametrize("length", [1000, 1 << 40, (1 << 64) - 1])
def test_absurd_header_lengths(tmp_path, refusal, length):
    path = written(tmp_path / "x.safetensors", {"a": entry([4], 0, 16)}, bytes(16), length)
    assert f"claims {length:,} bytes" in refusal(path).message


def test_truncations(tmp_path, refusal):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(100), "b": torch.ones(3, dtype=torch.bfloat16)}, path)
    whole = path.read_bytes()
    for length in (9, 12, 60, len(whole) - 300, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "safetensors" in refusal(path).message
        with pytest.raises(NanhuntError, match="truncated"):  # before anything is read
            open_path(str(path))


def test_an_empty_tensor_lies_before_the_one_that_begins_where_it_ends(tmp_path):
    header = {"w": entry([4], 0, 16), "none": entry([0], 0, 0), "v": entry([2], 16, 24)}
    container = open_path(str(written(tmp_path / "x.safetensors", header, bytes(24))))
    assert {name: tensor.shape for name, tensor in container.tensors.items()} == {
        "none": (0,),
        "w": (4,),
        "v": (2,),
    }


def test_dtypes_without_a_judgement_are_refused_one_by_one(tmp_path):
    header = {"scale": entry([4], 0, 4, "F8_E8M0"), "w": entry([2], 4, 12)}
    container = open_path(str(written(tmp_path / "x.safetensors", header, bytes(12))))
    assert list(container.tensors) == ["w"]
    assert "F8_E8M0" in container.refused["scale"].message


def test_a_file_may_have_more_tensors_than_files_may_be_open(tmp_path):
    resource = pytest.importorskip("resource")
    save_file(
        {f"l.{number}": torch.full((3,), float(number)) for number in range(600)}, tmp_path / "x.safetensors"
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(300, soft), hard))
    try:
        tensors = open_path(str(tmp_path / "x.safetensors")).tensors
        values = [float(tensor.data[0]) for tensor in tensors.values()]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sorted(values) == list(range(600))


def test_what_is_written_anew_is_mapped_anew(tmp_path):
    kept = []
    for value in (1.0, 2.0):
        save_file({"a": torch.full((3,), value)}, tmp_path / "x.safetensors")
        kept.append(open_path(str(tmp_path / "x.safetensors")).tensors["a"].data)
        assert kept[-1][0] == value
