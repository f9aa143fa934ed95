"""GGUF as the gguf package writes it: floats as they are, quantized blocks by their scales."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import nanhunt
from nanhunt.load import open_path
from nanhunt.load.readers.gguf import _BLOCKS

RNG = np.random.default_rng(5)
VALUES = RNG.standard_normal((3, 512)).astype(np.float32)


def header(name: str, shape: tuple[int, ...], kind: int, order: str = "<", version: int = 3) -> bytes:
    """A file with one tensor, up to its bytes: written here so that every type can be made without a package."""
    begin = b"GGUF" + struct.pack(f"{order}IQQ", version, 1, 3)
    for key, value in (
        (b"a", struct.pack(f"{order}If", 6, 1.0)),
        (b"words", struct.pack(f"{order}IIQ", 9, 8, 2) + 2 * (struct.pack(f"{order}Q", 2) + b"ab")),
        (b"general.alignment", struct.pack(f"{order}II", 4, 64)),
    ):
        begin += struct.pack(f"{order}Q", len(key)) + key + value
    begin += struct.pack(f"{order}Q", len(name)) + name.encode() + struct.pack(f"{order}I", len(shape))
    begin += struct.pack(f"{order}{len(shape)}QIQ", *reversed(shape), kind, 0)
    return begin + bytes(-len(begin) % 64)


def findings(path: Path) -> dict[str, str]:
    return {each.tensor: each.findings[0].message for each in nanhunt.check(path).tensors if each.findings}


def test_what_the_package_writes(tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_uint32("llama.block_count", 1)
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc"])
    writer.add_array("tokenizer.ggml.scores", [1.0, 2.0])
    bad = VALUES.copy()
    bad[1, 7] = np.nan
    writer.add_tensor("token_embd.weight", bad)
    kinds = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "TQ1_0", "TQ2_0", "BF16")
    packed = {}
    for kind in kinds:
        enum = gguf.GGMLQuantizationType[kind]
        packed[kind] = gguf.quants.quantize(VALUES, enum)
        writer.add_tensor(f"blk.{kind}.weight", packed[kind], raw_dtype=enum)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    container = open_path(str(tmp_path / "m.gguf"))
    assert container.format == "gguf"
    np.testing.assert_array_equal(container.tensors["token_embd.weight"].data, bad)
    assert container.tensors["blk.BF16.weight"].dtype == "bfloat16"
    for kind in kinds[:-1]:
        tensor = container.tensors[f"blk.{kind}.weight"]
        whole = gguf.quants.dequantize(packed[kind], gguf.GGMLQuantizationType[kind])
        block = next(each for each in _BLOCKS.values() if each.name == kind)
        largest = np.abs(whole.reshape(3, -1, block.values)).max(-1)
        scale = np.asarray(tensor.data, np.float32)
        scale = scale[..., 0] if block.count == 2 else scale
        # A block's largest value is a small multiple of its scale; both are 0 together.
        assert ((largest == 0) == (scale == 0)).all() or block.count == 2
        assert (largest <= 130 * np.abs(scale) + 4).all()
    assert findings(tmp_path / "m.gguf") == {
        "token_embd.weight": "1 NaN of 1,536 values, the first at [1, 7]"
    }


@pytest.mark.parametrize("kind", _BLOCKS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_scale_that_is_not_finite_is_found_in_its_block(tmp_path, kind, order):
    block = _BLOCKS[kind]
    shape = (2, 3, 2 * block.values)  # experts, rows, columns
    body = np.zeros((12, block.size), np.uint8)
    nan = {
        "e8m0": b"\xff", "float8_e4m3fn": b"\x7f", "float32": struct.pack(f"{order}f", np.nan),
        "nibbles": struct.pack(f"{order}4H", 0, 0, 0xE000, 0x7000), "float16": struct.pack(f"{order}e", np.nan),
    }[block.dtype]  # fmt: skip
    body[9, block.at : block.at + len(nan)] = np.frombuffer(nan, np.uint8)
    (tmp_path / "m.gguf").write_bytes(header("ffn_down_exps.weight", shape, kind, order) + body.tobytes())
    where = "[1, 1, 1, 0]" if block.count > 1 and block.dtype != "nibbles" else "[1, 1, 1]"
    count = 12 * (block.count if block.dtype != "nibbles" else 1)
    assert findings(tmp_path / "m.gguf") == {
        "ffn_down_exps.weight": f"1 NaN of {count} values, the first at {where}"
    }
    (report,) = nanhunt.check(tmp_path / "m.gguf").tensors
    assert block.name in report.notes[0]


@pytest.mark.parametrize(
    ("kind", "scale", "said"),
    [
        (8, 0.0, ["1 of 12 values are 0: what they scale becomes 0, or infinite"]),
        (8, -0.5, ["1 of 12 values are negative: what it scales changes its sign (the first is -0.5)"]),
        (8, 0.5, []),
        (2, -0.5, []),  # Q4_0 divides by the value of largest magnitude, with its sign
        (3, 0.0, []),  # Q4_1 has minima among its scales
    ],
)
def test_a_scale_that_is_not_positive_is_a_note(tmp_path, kind, scale, said):
    block = _BLOCKS[kind]
    body = np.zeros((12, block.size), np.uint8)
    for row in range(12):
        body[row, :2] = np.frombuffer(np.float16(scale if row == 7 else 0.25).tobytes(), np.uint8)
    (tmp_path / "m.gguf").write_bytes(header("w", (12, block.values), kind) + body.tobytes())
    report = nanhunt.check(tmp_path / "m.gguf")
    assert [finding.message for finding in report.findings] == said
    assert report.ok


def test_the_blocks_are_those_of_the_package():
    constants = pytest.importorskip("gguf.constants")
    for kind, block in _BLOCKS.items():
        known = constants.GGMLQuantizationType(kind)
        values, size = constants.GGML_QUANT_SIZES[known]
        # The package says 40 for Q8_1, which ggml-common.h packs into 36; nobody stores it.
        assert (known.name, values, size if kind != 9 else 36) == (block.name, block.values, block.size)


@pytest.mark.parametrize("version", [1, 4, 1 << 20])
def test_other_versions(tmp_path, refusal, version):
    (tmp_path / "m.gguf").write_bytes(header("w", (4,), 0, version=version) + bytes(16))
    assert "version" in refusal(tmp_path / "m.gguf").message


@pytest.mark.parametrize(
    ("shape", "kind", "says"),
    [
        ((1 << 62,), 0, "more than any array holds"),
        ((1 << 40,), 0, "and 16 follow"),
        ((256, 300), 12, "is Q4_K"),
        ((), 12, "is Q4_K"),
        ((4,), 99, "type 99"),
    ],
)
def test_headers_that_claim_what_is_not_there(tmp_path, refusal, shape, kind, says):
    (tmp_path / "m.gguf").write_bytes(header("w", shape, kind) + bytes(16))
    if kind == 99:
        assert says in open_path(str(tmp_path / "m.gguf")).refused["w"].message
    elif shape:
        assert says in refusal(tmp_path / "m.gguf").message


def test_truncated_anywhere(tmp_path, refusal):
    whole = header("w", (4,), 0) + bytes(16)
    for cut in range(4, len(whole), 3):
        (tmp_path / "m.gguf").write_bytes(whole[:cut])
        assert "not a whole .gguf" in refusal(tmp_path / "m.gguf").message


def test_absurd_counts_end_with_the_file(tmp_path, refusal):
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 63, 0) + bytes(4096))
    refusal(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, (1 << 64) - 1) + bytes(4096))
    refusal(tmp_path / "m.gguf")
