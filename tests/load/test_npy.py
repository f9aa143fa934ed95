from __future__ import annotations

import ast
import io
import struct
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from nanhunt.errors import NanhuntError
from nanhunt.load import RefusedTensor, open_path
from nanhunt.load.tensor import BITS, FLOATING, INTEGER


def save(path, array, **options):
    np.save(path, array, **options)
    return str(path)


def only(path, **options):
    container = open_path(path, **options)
    assert list(container.tensors) == [""]
    assert container.format == "npy"
    return container.tensors[""]


@pytest.mark.parametrize(
    "dtype", [*(name for name in (*FLOATING, *INTEGER) if name not in BITS), "complex64", "complex128"]
)
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("byte_order", "<>")
def test_every_numpy_dtype_order_and_endianness(tmp_path, dtype, order, byte_order):
    values = (np.arange(24).reshape(2, 3, 4) % 7).astype(
        np.dtype(dtype).newbyteorder(byte_order), order=order
    )
    tensor = only(save(tmp_path / "x.npy", values))
    assert (tensor.dtype, tensor.shape) == (dtype, (2, 3, 4))
    assert tensor.data.dtype == np.dtype(dtype)
    assert tensor.data.dtype.isnative
    np.testing.assert_array_equal(tensor.data, values)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions(tmp_path, logits, version):
    path = tmp_path / "x.npy"
    with path.open("wb") as stream:
        np.lib.format.write_array(stream, logits, version)
    np.testing.assert_array_equal(only(str(path)).data, logits)


@pytest.mark.parametrize("shape", [(), (0,), (5,), (0, 3), (3, 0), (2, 0, 4), (1, 1, 1, 1)])
def test_shapes(tmp_path, shape):
    values = np.ones(shape, np.float32)
    tensor = only(save(tmp_path / "x.npy", values))
    assert tensor.shape == tensor.data.shape == shape
    np.testing.assert_array_equal(tensor.data, values)


def test_values_are_mapped_and_never_written_back(tmp_path, logits):
    path = save(tmp_path / "x.npy", logits)
    data = only(path).data
    assert not data.flags.owndata
    data[0, 0] = 7  # torch may be handed this array: it must not be read-only, nor the user's file
    np.testing.assert_array_equal(np.load(path), logits)


def test_torch_takes_the_map_without_a_warning(tmp_path, logits):
    import torch

    data = only(save(tmp_path / "x.npy", logits)).data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.from_numpy(data)[1, 0] == 1000


@pytest.mark.parametrize(("dtype", "stored"), [("bfloat16", "V2"), ("float8_e4m3fn", "V1")])
def test_formats_numpy_lacks_need_a_name(tmp_path, refusal, logits, dtype, stored):
    values = logits.astype(getattr(ml_dtypes, dtype))
    path = save(tmp_path / "x.npy", values)
    error = refusal(path)
    assert isinstance(error, RefusedTensor)
    assert stored in error.message
    assert f"--stored-dtype {dtype}" in error.hint
    tensor = only(path, stored_dtype=dtype)
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor.data, values.view(BITS[dtype]))


def test_float8_e5m2_says_its_name(tmp_path, logits):
    values = logits.astype(ml_dtypes.float8_e5m2)
    tensor = only(save(tmp_path / "x.npy", values))
    assert tensor.dtype == "float8_e5m2"
    np.testing.assert_array_equal(tensor.data, values.view(np.uint8))


def test_float8_e5m2_of_raw_bytes(tmp_path, logits):
    values = logits.astype(ml_dtypes.float8_e5m2).view("V1")
    tensor = only(save(tmp_path / "x.npy", values), stored_dtype="float8_e5m2")
    np.testing.assert_array_equal(tensor.data, values.view(np.uint8))


def test_stored_dtype_of_another_width_is_refused(tmp_path, refusal, logits):
    path = save(tmp_path / "x.npy", logits.astype(ml_dtypes.bfloat16))
    assert "cannot be float8_e5m2" in refusal(path, stored_dtype="float8_e5m2").message


def test_stored_dtype_float16_of_raw_bytes(tmp_path, logits):
    path = save(tmp_path / "x.npy", logits.astype(np.float16).view("V2"))
    np.testing.assert_array_equal(only(path, stored_dtype="float16").data, logits.astype(np.float16))


def test_stored_dtype_does_not_override_the_file(tmp_path, logits):
    assert only(save(tmp_path / "x.npy", logits), stored_dtype="bfloat16").dtype == "float32"


def with_header(header: bytes, version: int = 1, body: bytes = b"") -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + body


def test_a_readable_ml_dtypes_name(tmp_path):
    path = tmp_path / "x.npy"
    header = b"{'descr': 'bfloat16', 'fortran_order': False, 'shape': (2,), }\n"
    path.write_bytes(with_header(header, body=b"\x80\x3f\x00\x40"))
    assert only(str(path)).dtype == "bfloat16"
    assert only(str(path)).data.tolist() == [0x3F80, 0x4000]


def test_headers_of_python_2(tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(
        with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 2L), }\n", body=bytes(8))
    )
    assert only(str(path)).shape == (1, 2)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array([{"a": 1}], dtype=object), "Python objects"),
        (np.array(["yes", "no"]), "text"),
        (np.array(["2026-01-01"], dtype="M8[D]"), "dates"),
        (np.zeros(2, [("logits", "f4"), ("label", "i8")]), "records (logits, label)"),
        (np.zeros(2, np.longdouble), "extended precision"),
        (np.zeros(2, "V12"), "raw pieces of 12 bytes"),
    ],
)  # fmt: skip
def test_kinds_that_are_no_tensors(tmp_path, refusal, array, says):
    assert says in refusal(save(tmp_path / "x.npy", array, allow_pickle=True)).message


def test_pickled_objects_are_not_loaded(tmp_path, refusal):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    refusal(save(tmp_path / "x.npy", np.array([Bomb()], dtype=object), allow_pickle=True))
    assert not (tmp_path / "ran").exists()


def test_every_truncation_is_refused(tmp_path, refusal, logits):
    stream = io.BytesIO()
    np.save(stream, logits)
    whole = stream.getvalue()
    path = tmp_path / "cut.npy"
    for length in (1, 5, 6, 9, 10, 11, 12, 60, 127, 128, 129, len(whole) - 1):
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9223372036854775807), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (0x" + b"f" * 9000 + b",), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775807), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(1," * 2 + b")" * 2 + b", }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1," * 70 + b"), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }",
        b"{'descr': '<f4', 'fortran_order': 'no', 'shape': (1,), }",
        b"{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': '\x1b[31m', 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': 7, 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': '<f4'}",
        b"[1, 2]",
        b"__import__('os').getcwd()",
        b"(" * 5000,
        b"\xff\xfe",
        b"",
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_absurd_headers(tmp_path, refusal, header, version):
    path = tmp_path / "x.npy"
    path.write_bytes(with_header(header, version, bytes(64)))
    refusal(path)


def test_terabytes_are_compared_with_the_file_first(tmp_path, refusal):
    path = tmp_path / "x.npy"
    path.write_bytes(
        with_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }\n")
    )
    assert "8,000,000,000,000 bytes" in refusal(path).message


@pytest.mark.parametrize("missing", [1, 4, 128])
def test_a_cut_is_told_when_the_file_is_opened(tmp_path, missing):
    path = tmp_path / "x.npy"
    np.save(path, np.ones(64, np.float32))
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(NanhuntError, match=f"256 bytes, and {256 - missing} follow"):
        open_path(str(path))


def test_a_header_longer_than_any_is_not_parsed(tmp_path, refusal):
    path = tmp_path / "x.npy"
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }"
    path.write_bytes(with_header(text + b" " * (1 << 16), 2, bytes(4)))
    assert "header claims 65,593 bytes" in refusal(path).message


def test_unknown_version(tmp_path, refusal):
    path = tmp_path / "x.npy"
    path.write_bytes(with_header(b"{}", 2)[:6] + b"\x09\x00" + bytes(20))
    assert "version 9.0" in refusal(path).message


def test_a_file_that_shrinks_after_it_was_opened(tmp_path, refusal, logits):
    path = tmp_path / "x.npy"
    tensor = only(save(path, np.zeros((64, 1024), np.float32)))
    path.write_bytes(b"gone")
    with pytest.raises(NanhuntError, match="became shorter"):
        _ = tensor.data


def test_what_is_wrong_with_a_header_is_said(tmp_path, refusal):
    path = tmp_path / "x.npy"
    whole = with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2), }\n", body=bytes(8))
    path.write_bytes(whole)
    assert "its header gives no shape" in refusal(path).message
    path.write_bytes(whole[:40])
    assert "its header claims 61 bytes" in refusal(path).message


def test_field_names_of_version_3_are_utf8(tmp_path, refusal):
    path = tmp_path / "x.npy"
    header = "{'descr': [('größe', '<f4')], 'fortran_order': False, 'shape': (1,), }\n".encode()
    path.write_bytes(with_header(header, 3, bytes(4)))
    assert "records (größe)" in refusal(path).message


def test_a_thread_that_parses_code_meanwhile_spoils_no_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPython 3.11.7 counts the depth of all threads together, and raises where they do not add up."""
    parse, failures = ast.literal_eval, iter([True, True, False])

    def spoilt(text: str) -> object:
        if next(failures):
            raise SystemError("AST constructor recursion depth mismatch (before=48, after=222)")
        return parse(text)

    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    monkeypatch.setattr(ast, "literal_eval", spoilt)
    assert open_path(str(tmp_path / "x.npy")).tensors[""].shape == (2, 3)
