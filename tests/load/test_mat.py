"""MATLAB's files as scipy writes them, and those of 7.3, which are HDF5."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import nanhunt
from nanhunt.load import open_path

VALUES = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize("compressed", [False, True])
def test_variables_are_tensors(tmp_path, compressed):
    scipy = pytest.importorskip("scipy.io")
    sparse = pytest.importorskip("scipy.sparse")
    bad = VALUES.copy()
    bad[1, 2] = np.nan
    content = {
        "w": bad, "whole": VALUES.astype(np.float32), "labels": np.arange(3), "flag": np.array([True]),
        "z": np.ones(2, complex), "name": "text", "part": {"a": VALUES}, "s": sparse.csc_matrix(np.diag([1.0, np.inf])),
    }  # fmt: skip
    scipy.savemat(tmp_path / "x.mat", content, do_compression=compressed)
    container = open_path(str(tmp_path / "x.mat"))
    assert {name: each.dtype for name, each in container.tensors.items()} == {
        "w": "float64", "whole": "float32", "labels": "int64", "flag": "bool", "z": "complex128",
    }  # fmt: skip
    np.testing.assert_array_equal(container.tensors["whole"].data, VALUES)
    assert set(container.refused) == {"name", "part"}
    assert container.unread == {"part": "a MATLAB struct, which may hold numbers"}
    found = {each.tensor: each.findings[0].rows for each in nanhunt.check(tmp_path).tensors if each.findings}
    assert found == {"w": (6,), "s": (1,)}
    whole = (tmp_path / "x.mat").read_bytes()
    (tmp_path / "x.mat").write_bytes(whole[: len(whole) // 2])
    assert "damaged" in nanhunt.check(tmp_path).errors[0].message


def test_version_7_3(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.mat", "w", userblock_size=512) as file:
        file["w"] = VALUES
    with (tmp_path / "x.mat").open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")
    np.testing.assert_array_equal(open_path(str(tmp_path / "x.mat")).tensors["w"].data, VALUES)


def test_without_its_package_the_extra_is_named(tmp_path, monkeypatch, refusal):
    (tmp_path / "x.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert "pip install 'nanhunt[mat]'" in refusal(tmp_path / "x.mat").hint
