"""HDF5 as h5py, Keras and MATLAB lay it out; what lies outside of the file stays there."""

from __future__ import annotations

import io
import sys
import zipfile

import numpy as np
import pytest

import nanhunt
from nanhunt.load import open_path

h5py = pytest.importorskip("h5py")
VALUES = np.arange(100, dtype=np.float32).reshape(10, 10)


def test_every_layout_gives_the_same_values(tmp_path):
    big = VALUES.astype(">f8")
    with h5py.File(tmp_path / "x.h5", "w", userblock_size=512) as file:
        file["a/contiguous"] = VALUES
        file["big"] = big
        file.create_dataset("packed", data=VALUES, chunks=(3, 4), compression="gzip", shuffle=True)
        file.create_dataset("compact/half", data=VALUES.astype(np.float16)[0])
        file.create_dataset("strict", data=VALUES.astype(">f4"), chunks=(2, 10))
        file["labels"] = np.arange(10)
        file["flag"] = np.array([True, False])
        file["scalar"] = 2.5
        file["words"] = "text"
    container = open_path(str(tmp_path / "x.h5"))
    assert container.format == "hdf5"
    for name in ("a.contiguous", "big", "packed", "strict"):
        np.testing.assert_array_equal(container.tensors[name].data, VALUES)
        assert container.tensors[name].data.dtype.isnative
    np.testing.assert_array_equal(container.tensors["compact.half"].data, VALUES[0])
    assert container.tensors["labels"].dtype == "int64"
    assert container.tensors["flag"].dtype == "bool"
    assert container.tensors["scalar"].data == 2.5
    assert set(container.refused) == {"words"}
    assert not nanhunt.check(tmp_path / "x.h5").errors


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_keras_archives_and_their_bfloat16(tmp_path, compression):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    stream = io.BytesIO()
    values = VALUES.copy()
    values[3, 4] = np.nan
    with h5py.File(stream, "w") as file:
        file["layers/dense/vars/0"] = values
        half = file.create_dataset("layers/dense/vars/1", data=np.ones(3, ml_dtypes.bfloat16).view("V2"))
        half.attrs["dtype"] = "bfloat16"
    with zipfile.ZipFile(tmp_path / "m.keras", "w", compression) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", stream.getvalue())
    container = open_path(str(tmp_path / "m.keras"))
    assert container.format == "keras"
    assert container.tensors["layers.dense.vars.1"].dtype == "bfloat16"
    (bad,) = [each for each in nanhunt.check(tmp_path).tensors if each.findings]
    assert (bad.tensor, bad.findings[0].rows) == ("layers.dense.vars.0", (34,))


def test_other_files_are_not_opened(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(16))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = VALUES
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["w"] = VALUES
        file["soft"] = h5py.SoftLink("/w")
        file["linked"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
        file.create_dataset("outside", shape=(4,), dtype="f4", external=[(str(tmp_path / "secret"), 0, 16)])
        layout = h5py.VirtualLayout(shape=(10, 10), dtype="f4")
        layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape=(10, 10))
        file.create_virtual_dataset("virtual", layout)
    container = open_path(str(tmp_path / "x.h5"))
    assert list(container.tensors) == ["w"]
    assert set(container.refused) == {"outside", "virtual"}
    assert all("other files" in error.message for error in container.refused.values())
    assert list(container.unread) == ["linked"]
    assert container.unread["linked"].startswith("a link to another file (")


def test_lists_of_any_length_are_named_as_not_looked_at(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["w"] = VALUES
        file.create_dataset("lists", (2,), h5py.vlen_dtype(np.float64))[0] = [1.0, np.nan]
        file.create_dataset("words", (2,), h5py.string_dtype())
    container = open_path(str(tmp_path / "x.h5"))
    assert container.unread == {"lists": "lists of any length of float64"}


def test_a_few_bytes_do_not_fill_the_disk(tmp_path, refusal):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("w", shape=(1 << 50,), chunks=(1 << 20,), dtype="f4")
        file.create_dataset("zeros", shape=(1 << 20,), chunks=(1 << 20,), dtype="f4")
    container = open_path(str(tmp_path / "x.h5"))
    assert "more than its 0 packed bytes" in container.refused["w"].message
    assert not container.tensors["zeros"].data.any()


def test_damaged(tmp_path, refusal):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["w"] = VALUES
    whole = (tmp_path / "x.h5").read_bytes()
    for cut in (20, 600, len(whole) - 8):
        (tmp_path / "x.h5").write_bytes(whole[:cut])
        assert "damaged" in refusal(tmp_path / "x.h5").message


def test_a_damaged_chunk_is_told_when_it_is_read(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["fine"] = VALUES
        made = file.create_dataset("w", data=VALUES, chunks=(10, 10), compression="gzip")
        where = made.id.get_chunk_info(0).byte_offset
    content = bytearray((tmp_path / "x.h5").read_bytes())
    content[where : where + 20] = bytes(20)
    (tmp_path / "x.h5").write_bytes(content)
    report = nanhunt.check(tmp_path / "x.h5")
    assert [each.tensor for each in report.tensors] == ["fine"]
    assert "damaged" in report.errors[0].message


def test_without_its_package_the_extra_is_named(tmp_path, monkeypatch, refusal):
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(20))
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "pip install 'nanhunt[hdf5]'" in refusal(tmp_path / "x.h5").hint
