"""MessagePack as flax.serialization writes it (its extensions are spelled out here: flax brings jax along)."""

from __future__ import annotations

import numpy as np
import pytest

import nanhunt
from nanhunt.load import find, open_path

msgpack = pytest.importorskip("msgpack")
VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


def packed(value):
    """flax.serialization._msgpack_ext_pack."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        body = msgpack.packb((array.shape, array.dtype.name, array.tobytes("C")), use_bin_type=True)
        return msgpack.ExtType(1 if isinstance(value, np.ndarray) else 3, body)
    if isinstance(value, complex):
        return msgpack.ExtType(2, msgpack.packb((value.real, value.imag)))
    return value


def write(path, content):
    path.write_bytes(msgpack.packb(content, default=packed, strict_types=True))
    return str(path)


def chunked(array, size):
    flat = array.reshape(-1)
    parts = [flat[start : start + size] for start in range(0, flat.size, size)]
    numbered = {str(number): part for number, part in enumerate(parts)}
    shape = {str(number): extent for number, extent in enumerate(array.shape)}
    return {"__msgpack_chunked_array__": True, "shape": shape, "chunks": numbered}


def test_what_flax_writes(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bad = VALUES.copy()
    bad[2, 1] = np.nan
    content = {
        "params": {"dense": {"kernel": bad, "bias": np.ones(3, ml_dtypes.bfloat16)}, "big": chunked(VALUES, 5)},
        "step": 7, "lr": 0.5, "scale": np.float32(np.inf), "z": 1 + 2j, "name": "x", "flag": True, "none": None,
        "shards": [VALUES.astype(np.float16), np.arange(2)], "empty": np.ones((0, 3), np.float32),
        "long": "y" * 300, "negative": -5, "deep": -100000, "raw": b"abc",
    }  # fmt: skip
    container = open_path(write(tmp_path / "m.msgpack", content))
    assert container.format == "msgpack"
    np.testing.assert_array_equal(container.tensors["params.big"].data, VALUES)
    np.testing.assert_array_equal(container.tensors["params.dense.kernel"].data, bad)
    assert container.tensors["params.dense.bias"].dtype == "bfloat16"
    assert container.tensors["shards.0"].dtype == "float16"
    assert container.tensors["empty"].shape == (0, 3)
    found = {each.tensor: each.findings[0].rows for each in nanhunt.check(tmp_path).tensors if each.findings}
    assert found == {"params.dense.kernel": (9,), "scale": (0,)}


@pytest.mark.parametrize(
    "content",
    [
        {"w": msgpack.ExtType(1, msgpack.packb(((3, 5), "float32", VALUES.tobytes())))},
        {"w": msgpack.ExtType(1, b"\x01")},
        {"w": chunked(VALUES, 5) | {"shape": {"0": 1 << 40}}},
        {"w": chunked(VALUES, 5) | {"chunks": {}}},
        {"w": {"x": VALUES}, "y": msgpack.ExtType(1, msgpack.packb(((-1,), "float32", b"")))},
    ],
)
def test_arrays_that_are_not_what_they_say(tmp_path, refusal, content):
    assert "truncated or damaged" in refusal(write(tmp_path / "m.msgpack", content)).message


def test_truncated_anywhere(tmp_path, refusal):
    write(tmp_path / "m.msgpack", {"params": {"w": VALUES}, "step": 3})
    whole = (tmp_path / "m.msgpack").read_bytes()
    for cut in range(9, len(whole)):
        (tmp_path / "m.msgpack").write_bytes(whole[:cut])
        assert "truncated or damaged" in refusal(tmp_path / "m.msgpack").message
    (tmp_path / "m.msgpack").write_bytes(whole + b"x")
    assert "follow its end" in refusal(tmp_path / "m.msgpack").message


@pytest.mark.parametrize("lists", [b"\x91" * 5000, b"\xdd\xff\xff\xff\xff" * 9])
def test_absurd_nesting_and_counts(tmp_path, refusal, lists):
    (tmp_path / "m.msgpack").write_bytes(b"\x81\xa1w" + lists)
    assert "truncated or damaged" in refusal(tmp_path / "m.msgpack").message


def test_pickles_and_texts_are_not_taken_for_it(tmp_path):
    np.save(tmp_path / "x.npy", VALUES)
    (tmp_path / "p").write_bytes(b"\x80\x04\x95\x00")
    (tmp_path / "t").write_bytes(b"\x81\xa3\xff\xfe\xfd text")
    assert [what for _, what in find([str(tmp_path)]).passed_over] == ["a Python pickle", "unknown format"]
