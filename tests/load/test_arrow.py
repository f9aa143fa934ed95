"""Parquet and Arrow tables: lists of one length are tensors, others are checked number by number and said to be so."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import nanhunt
from nanhunt.load import extras, find, open_path

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
VALUES = np.random.default_rng(3).standard_normal((50, 7)).astype(np.float32)


def write(path, table, kind):
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=20)
    else:
        new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=20)
    return str(path)


def lists(values, kind=None):
    return pa.array([row.tolist() for row in values], kind or pa.list_(pa.float32()))


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_columns_of_numbers_and_of_lists(tmp_path, kind):
    table = pa.table({
        "logits": lists(VALUES),
        "fixed": lists(VALUES, pa.list_(pa.float32(), 7)),
        "wide": lists(VALUES, pa.large_list(pa.float64())),
        "half": pa.array(VALUES[:, 0].astype(np.float16)),
        "cube": pa.array(VALUES[:48].reshape(48, 7, 1)[:, :6].reshape(48, 2, 3).tolist() + [[[0.0] * 3] * 2] * 2),
        "labels": pa.array(np.arange(50) % 7),
        "flag": pa.array([True, False] * 25),
        "x.y": pa.array(VALUES[:, 0]),
        "words": pa.array(["a"] * 50),
    })  # fmt: skip
    container = open_path(write(tmp_path / "x", table, kind))
    assert container.format == "arrow"
    for name in ("logits", "fixed", "wide"):
        np.testing.assert_array_equal(container.tensors[name].data, VALUES)
    assert container.tensors["half"].dtype == "float16"
    assert container.tensors["cube"].shape == (50, 2, 3)
    assert container.tensors["flag"].dtype == "bool"
    assert list(container.refused) == ["words"]
    (report, *_) = [each for each in nanhunt.check(tmp_path / "x").tensors if each.tensor == "logits"]
    assert (report.role, report.shape, report.rows) == ("logits", (50, 7), 50)
    assert report.targets is not None


def test_lists_of_integers_of_unequal_length_are_no_floating_point_numbers(tmp_path):
    table = pa.table({"logprobs": [[-0.1, float("nan")], [-0.5]], "ids": [[1, 2], [3]]})
    pq.write_table(table, tmp_path / "x.parquet")
    (report,) = nanhunt.check(str(tmp_path / "x.parquet")).tensors
    assert (report.tensor, report.findings[0].rows) == ("logprobs", (1,))


def test_lists_of_unequal_length_are_said_and_checked(tmp_path):
    rows = [[{"token": "a", "logprob": -1.0 * k} for k in range(1 + row % 3)] for row in range(50)]
    rows[7][1]["logprob"] = np.nan
    table = pa.table({"logprobs": pa.array(rows), "logits": pa.array([[1.0], [2.0, 3.0]] * 25)})
    reports = {each.tensor: each for each in nanhunt.check(write(tmp_path / "x", table, "parquet")).tensors}
    bad = reports["logprobs.logprob"]
    assert "lists of 1 to 3 numbers" in bad.notes[0]
    assert bad.findings[0].message.startswith("1 NaN of 99 values")
    assert reports["logits"].role == "values"
    assert not reports["logits"].findings


def test_nulls_are_no_numbers(tmp_path):
    table = pa.table({
        "loss": pa.array([1.0, None, 3.0]),
        "logits": pa.array([[1.0, 2.0], None, [3.0, None]]),
    })  # fmt: skip
    report = nanhunt.check(write(tmp_path / "x", table, "file"))
    assert not report.findings
    notes = {each.tensor: each.notes[0] for each in report.tensors}
    assert "1 values are null" in notes["loss"]
    assert "2 values are null" in notes["logits"]


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_maps_and_dictionaries_are_looked_into(tmp_path, kind):
    table = pa.table({
        "top": pa.array(
            [[("a", 1.0), ("b", float("nan"))], None, [("c", 2.0)]] * 20, pa.map_(pa.string(), pa.float64())
        ),
        "same": pa.array([1.0, float("nan"), 1.0] * 20).dictionary_encode(),
    })  # fmt: skip
    container = open_path(write(tmp_path / "x", table, kind))
    np.testing.assert_array_equal(container.numbers["top.value"].data, [1.0, np.nan, 2.0] * 20)
    assert "lists of 1 to 2" in container.numbers["top.value"].note
    np.testing.assert_array_equal(container.tensors["same"].data, [1.0, np.nan, 1.0] * 20)


def test_what_a_few_bytes_can_blow_up_is_named_and_not_read(tmp_path):
    ends = pa.array([1 << 30], pa.int32())
    packed = pa.RunEndEncodedArray.from_arrays(ends, pa.array([1.0]))
    table = pa.table({"packed": packed.slice(0, 3), "x": pa.array([1.0, 2.0, 3.0])})
    container = open_path(write(tmp_path / "x", table, "file"))
    assert list(container.tensors) == ["x"]
    assert container.unread["packed"].startswith("a column of run_end_encoded")


def test_a_search_finds_tables(tmp_path):
    write(tmp_path / "x.parquet", pa.table({"a": [1.0]}), "parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1" + bytes(30))
    assert len(find([str(tmp_path)]).files) == 2
    assert "damaged" in nanhunt.check(tmp_path).errors[0].message


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_truncated(tmp_path, refusal, kind):
    write(tmp_path / "x", pa.table({"a": lists(VALUES)}), kind)
    whole = (tmp_path / "x").read_bytes()
    for cut in (12, 200, len(whole) // 2, len(whole) - 20):
        (tmp_path / "x").write_bytes(whole[:cut])
        refusal(tmp_path / "x")


READ_EACH = """
import pathlib, sys
from nanhunt.errors import NanhuntError
from nanhunt.load import open_path
file = pathlib.Path(sys.argv[1])
whole = file.read_bytes()
footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
for at in range(footer, len(whole) - 8):
    file.write_bytes(whole[:at] + bytes([21]) + whole[at + 1:])
    try:
        print(len([tensor.data for tensor in open_path(str(file)).tensors.values()]))
    except NanhuntError:
        print("refused")
"""


def test_damaged_metadata_do_not_end_the_process(tmp_path):
    """pyarrow aborts where it is asked for the metadata of a column whose type or encoding nobody knows."""
    path = tmp_path / "x.parquet"
    table = pa.table({"a": np.arange(20.0)})
    pq.write_table(table, path, store_schema=False, compression="none", use_dictionary=False)
    command = [sys.executable, "-c", READ_EACH, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"1", "refused"} <= set(done.stdout.split())


def test_a_few_bytes_do_not_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "SLACK", 1 << 16)
    monkeypatch.setattr(extras, "RATIO", 100)
    pq.write_table(pa.table({"a": np.zeros(1_000_000), "b": np.arange(1_000_000) % 2}), tmp_path / "x")
    container = open_path(str(tmp_path / "x"))
    assert not container.tensors
    assert "can hold" in container.refused["a"].message


def test_without_its_package_the_extra_is_named(tmp_path, monkeypatch, refusal):
    (tmp_path / "x").write_bytes(b"PAR1" + bytes(20))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'nanhunt[arrow]'" in refusal(tmp_path / "x").hint
