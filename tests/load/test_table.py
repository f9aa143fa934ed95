"""Tables of numbers as text: what numpy, pandas and people write."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import nanhunt
from nanhunt.load import find, open_path
from nanhunt.load.readers import table

VALUES = np.random.default_rng(4).standard_normal((30, 4))


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize("delimiter", [",", "\t", ";", " "])
def test_what_savetxt_writes_is_one_tensor(tmp_path, delimiter):
    values = VALUES.copy()
    values[7, 2], values[8, 0] = np.nan, -np.inf
    np.savetxt(tmp_path / "logits.csv", values, delimiter=delimiter)
    container = open_path(str(tmp_path / "logits.csv"))
    np.testing.assert_array_equal(container.tensors[""].data, values)
    (report,) = nanhunt.check(tmp_path / "logits.csv").tensors
    assert (report.role, [each.rows for each in report.findings]) == ("logits", [(7,)])


def test_a_header_names_the_columns(tmp_path):
    rows = [["id", "logit_0", "logit_1", "logit_2", "logit_3", "label", "name"]]
    rows += [[100 + i, *row, i % 4, f"a, {i}"] for i, row in enumerate(VALUES.tolist())]
    with (tmp_path / "x.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    container = open_path(str(tmp_path / "x.csv"))
    assert {name: (each.dtype, each.shape) for name, each in container.tensors.items()} == {
        "id": ("int64", (30,)), "logit": ("float64", (30, 4)), "label": ("int64", (30,)),
    }  # fmt: skip
    np.testing.assert_array_equal(container.tensors["logit"].data, VALUES)
    (report,) = nanhunt.check(tmp_path / "x.csv").tensors
    assert (report.role, report.targets is not None) == ("logits", True)


@pytest.mark.parametrize(
    ("lines", "tensors"),
    [
        (["0,1,2", "1.5,2,3", "4,5,6"], {"": (2, 3)}),
        (["a,b,a", "1.5,2,3", "4,5,6"], {"a": (2,), "b": (2,), "a#2": (2,)}),
        (["x1,x2,x9,x10", "1.5,2,3,4"], {"x": (1, 2), "x9": (1,), "x10": (1,)}),
        (["\ufeffa,b", "1.5,2"], {"a": (1,), "b": (1,)}),
        (["1e3,NaN", "-inf,2"], {"": (2, 2)}),
    ],
)
def test_which_columns_belong_together(tmp_path, lines, tensors):
    container = open_path(write(tmp_path / "x.csv", *lines))
    assert {name: each.shape for name, each in container.tensors.items()} == tensors


def test_empty_cells_are_no_numbers(tmp_path):
    lines = ["epoch,step,train_loss,val_loss", "0,1,0.5,", "0,2,,nan", "1,3,0.25,"]
    report = nanhunt.check(write(tmp_path / "metrics.csv", *lines))
    found = {each.tensor: (each.shape, len(each.findings)) for each in report.tensors}
    assert found == {"train_loss": ((2,), 0), "val_loss": ((1,), 1)}
    assert "1 cell is empty" in report.tensors[0].notes[0]


def test_a_row_of_logits_with_a_gap_is_judged_and_bad(tmp_path):
    lines = ["logit_0,logit_1,logit_2,label", "1,2,3,0", "90,1,2,1", "900,,0,2"]
    report = nanhunt.check(write(tmp_path / "logits.csv", *lines), dtype="float32")
    (logits,) = report.tensors
    assert (logits.rows, logits.targets is None) == (3, False)
    assert {finding.code: finding.rows for finding in logits.findings}["NH001"] == (2,)
    assert "1 cell is empty: NaN, as pandas reads it" in " ".join(logits.notes)
    assert report.exit_code == 1


def test_lines_of_unequal_length_are_said(tmp_path, refusal):
    lines = ["1.5,2.5"] * 2000
    write(tmp_path / "x.csv", *lines[:1500], "1,2,3", *lines)
    assert "line 1,501 has 3 cells, and the first one 2" in refusal(tmp_path / "x.csv").message


@pytest.mark.parametrize(
    "text",
    [
        "import numpy, torch\nx = 1, 2\n", "# Title\n\nSome words, and more.\n", "a,b\nc,d\n", "one column\n1\n2\n",
        "12:00 step 3 loss 0.5\n12:01 step 4 loss 0.4\n", '{"a": 1}\n', "[1, 2]\n", "key: 1, 2\nother: 3\n",
    ],
)  # fmt: skip
def test_other_texts_are_no_tables(tmp_path, text):
    np.save(tmp_path / "x.npy", VALUES)
    (tmp_path / "notes").write_text(text)
    assert find([str(tmp_path)]).files == [str(tmp_path / "x.npy")]


def test_large_tables_are_streamed(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_CELLS_AT_ONCE", 100)
    values = np.arange(3000).reshape(-1, 3) / 8
    np.savetxt(tmp_path / "x.csv", values, delimiter=",", fmt="%g", header="a,b,c", comments="")
    container = open_path(str(tmp_path / "x.csv"))
    np.testing.assert_allclose(container.tensors["b"].data, values[:, 1], rtol=1e-4)
