"""ONNX models as the onnx package writes them, and such as it would refuse."""

from __future__ import annotations

import numpy as np
import pytest

import nanhunt
from nanhunt.load import find, open_path

onnx = pytest.importorskip("onnx")
VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


def model(tensors, sparse=(), nodes=()):
    graph = onnx.helper.make_graph(
        list(nodes), "g", [], [], initializer=list(tensors), sparse_initializer=list(sparse)
    )
    return onnx.helper.make_model(graph, producer_name="pytorch")


def write(path, *tensors, **more):
    path.write_bytes(model(tensors, **more).SerializeToString())
    return str(path)


DTYPES = {
    "float32": np.float32, "float64": np.float64, "float16": np.float16, "int64": np.int64, "int8": np.int8,
    "uint8": np.uint8, "int32": np.int32, "complex64": np.complex64, "bool": np.bool_,
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("raw", [True, False])
def test_every_way_of_storing_numbers(tmp_path, dtype, raw):
    values = (VALUES - 3 * (dtype not in ("uint8", "bool"))).astype(DTYPES[dtype])
    kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    data = values.tobytes() if raw else values.flatten().tolist()
    tensor = onnx.helper.make_tensor("w", kind, values.shape, data, raw=raw)
    found = open_path(write(tmp_path / "m.onnx", tensor)).tensors["w"]
    assert (found.dtype, found.shape) == (dtype, (3, 4))
    np.testing.assert_array_equal(found.data, values)


@pytest.mark.parametrize(("name", "dtype"), [("BFLOAT16", "bfloat16"), ("FLOAT8E4M3FN", "float8_e4m3fn")])
@pytest.mark.parametrize("raw", [True, False])
def test_formats_that_numpy_lacks(tmp_path, name, dtype, raw):
    kind = onnx.TensorProto.DataType.Value(name)
    bits = {"bfloat16": [0x3F80, 0x7FC0], "float8_e4m3fn": [0x38, 0x7F]}[dtype]
    tensor = onnx.TensorProto(name="a.weight", data_type=kind, dims=[2])
    if raw:
        tensor.raw_data = np.array(bits, "<u2" if dtype == "bfloat16" else "u1").tobytes()
    else:
        tensor.int32_data.extend(bits)
    (report,) = nanhunt.check(write(tmp_path / "m.onnx", tensor)).tensors
    assert (report.stored_dtype, report.findings[0].rows) == (dtype, (1,))


def test_external_data_is_mapped_and_no_file_of_its_own(tmp_path):
    values = VALUES.copy()
    values[2, 1] = np.inf
    first, second = (
        onnx.numpy_helper.from_array(each, name) for each, name in ((VALUES, "a"), (values, "b"))
    )
    onnx.save_model(model([first, second]), str(tmp_path / "m.onnx"), save_as_external_data=True,
                    location="m.onnx.data", size_threshold=0)  # fmt: skip
    found = find([str(tmp_path)])
    assert (found.files, found.passed_over) == ([str(tmp_path / "m.onnx")], [])
    report = nanhunt.check(tmp_path / "m.onnx")
    assert [(each.tensor, each.findings[0].rows) for each in report.tensors if each.findings] == [("b", (9,))]
    data = tmp_path / "m.onnx.data"
    data.write_bytes(data.read_bytes()[:60])
    report = nanhunt.check(tmp_path / "m.onnx")
    assert [each.tensor for each in report.tensors] == ["a"]
    assert "60 bytes" in report.errors[0].message
    data.unlink()
    assert "does not exist" in nanhunt.check(tmp_path / "m.onnx").errors[0].message


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "", "a\0b"])
def test_external_data_stays_in_the_models_folder(tmp_path, refusal, location):
    (tmp_path / "secret").write_bytes(bytes(48))
    (tmp_path / "x").mkdir()
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[12], data_location=1)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    error = refusal(write(tmp_path / "x" / "m.onnx", tensor))
    assert "not beside it" in error.message


def test_subgraphs_and_sparse_initializers(tmp_path):
    inner = onnx.helper.make_graph(
        [], "body", [], [], initializer=[onnx.numpy_helper.from_array(VALUES, "inner")]
    )
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    values = onnx.numpy_helper.from_array(np.array([1, np.nan], np.float32), "s")
    indices = onnx.numpy_helper.from_array(np.array([3, 7]), "i")
    sparse = onnx.helper.make_sparse_tensor(values, indices, [100])
    container = open_path(write(tmp_path / "m.onnx", sparse=[sparse], nodes=[node]))
    assert set(container.tensors) == {"inner", "s"}
    (bad,) = [each for each in nanhunt.check(tmp_path / "m.onnx").tensors if each.findings]
    assert (bad.tensor, bad.notes) == ("s", ("sparse: the values that are stored",))


def test_the_number_that_masks_are_filled_with_is_no_fault(tmp_path):
    fill = onnx.numpy_helper.from_array(np.array(-np.inf, np.float32), "onnx::Where_7")
    report = nanhunt.check(write(tmp_path / "m.onnx", fill, onnx.numpy_helper.from_array(VALUES, "w")))
    assert not report.findings
    assert "masks are filled" in report.not_looked_at[0].what


@pytest.mark.parametrize("dims", [[13], [-1], [1 << 62], [3, 4, 1 << 61]])
def test_shapes_that_the_bytes_do_not_fill(tmp_path, refusal, dims):
    tensor = onnx.TensorProto(name="w", data_type=1, dims=dims, raw_data=VALUES.tobytes())
    assert "not a whole ONNX model" in refusal(write(tmp_path / "m.onnx", tensor)).message


def test_truncated_anywhere(tmp_path, refusal):
    whole = model([onnx.numpy_helper.from_array(VALUES, "w")]).SerializeToString()
    for cut in range(24, len(whole) - 1, 3):
        (tmp_path / "m.onnx").write_bytes(whole[:cut])
        refusal(tmp_path / "m.onnx")
