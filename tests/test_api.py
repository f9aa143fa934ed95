"""check and compare as a notebook or a test uses them."""

from __future__ import annotations

import math
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nanhunt
from nanhunt.errors import NanhuntError
from nanhunt.results.report import Report

LOGITS = [[2.0, 1.0, 0.1], [1000.0, 1.0, -1000.0], [3.0, 2.0, 1.0]]
LABELS = [0, 2, 1]
JUDGES = [nanhunt.check, nanhunt.compare]


@pytest.mark.parametrize("judge", JUDGES)
def test_the_articles_batch(judge: Any) -> None:
    report = judge(np.array(LOGITS, np.float32), np.array(LABELS))
    assert not report.ok
    assert report.exit_code == 1
    assert [finding.name for finding in report.findings] == ["exp-overflow", "probability-underflow"]
    assert report.findings[0].rows == (1,)
    assert Report.from_json(report.to_json()).to_json() == report.to_json()


def test_compare_tells_the_losses_and_check_leaves_them_out() -> None:
    compare = nanhunt.compare(np.array(LOGITS, np.float32), LABELS).tensors[0]
    assert compare.implementations["naive"].loss == math.inf
    assert compare.implementations["fused"].loss == pytest.approx(667.27487866, rel=1e-7)
    assert compare.truth is not None
    assert compare.truth.loss == pytest.approx(667.27487866, rel=1e-10)
    check = nanhunt.check(np.array(LOGITS, np.float32), LABELS).tensors[0]
    assert check.truth is None
    assert check.implementations["fused"].loss is None


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(
    "x",
    [
        LOGITS, np.array(LOGITS), np.array(LOGITS, np.float16), torch.tensor(LOGITS), torch.tensor(LOGITS).bfloat16(),
        torch.tensor(LOGITS, requires_grad=True), torch.tensor(LOGITS).T.contiguous().T, np.asfortranarray(LOGITS),
        np.array(LOGITS, ">f4"), np.array(LOGITS)[:, ::1],
    ],
)  # fmt: skip
def test_values_of_every_kind(judge: Any, x: Any) -> None:
    report = judge(x, torch.tensor(LABELS))
    assert [finding.rows for finding in report.findings if finding.code == "NH101"] == [(1,)]


def test_the_callers_values_are_left_alone() -> None:
    x = np.array(LOGITS, np.float32)
    x.flags.writeable = False
    tensor = torch.tensor(LOGITS, requires_grad=True)
    nanhunt.compare(x, LABELS)
    nanhunt.compare(tensor, LABELS)
    assert x.tolist() == np.array(LOGITS, np.float32).tolist()
    assert tensor.grad is None
    assert tensor.requires_grad


@pytest.mark.parametrize("dtype", ["float16", torch.float16, np.float16])
def test_a_dtype_in_any_spelling(dtype: Any) -> None:
    assert nanhunt.check(np.array([[12.0, 0.0]]), [0], dtype).tensors[0].dtype == "float16"


def test_several_dtypes() -> None:
    report = nanhunt.check(np.array([[12.0, 0.0]], np.float32), [0], ["float32", "float16"])
    assert {tensor.dtype: bool(tensor.findings) for tensor in report.tensors} == {
        "float16": True,
        "float32": False,
    }


@pytest.mark.parametrize("judge", JUDGES)
def test_paths_alone_and_in_lists(judge: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array(LOGITS, np.float32))
    np.save(tmp_path / "t.npy", np.array(LABELS))
    for path in (tmp_path / "x.npy", str(tmp_path / "x.npy"), [tmp_path / "x.npy"]):
        report = judge(path, tmp_path / "t.npy")
        assert not report.ok
        assert report.tensors[0].targets.source.endswith("t.npy")
    missing = judge(tmp_path / "missing.npy")
    assert missing.exit_code == 2
    assert "missing.npy" in missing.errors[0].file


def test_one_row_of_one_dimension() -> None:
    report = nanhunt.check(np.array([1000.0, 0.0]), np.array([0]))
    assert report.tensors[0].rows == 1
    assert report.tensors[0].shape == (2,)


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_empty_batch_has_no_mean(judge: Any, reduction: str) -> None:
    report = judge(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), reduction=reduction)
    assert [finding.code for finding in report.findings] == (["NH007"] if reduction == "mean" else [])
    assert report.ok == (reduction == "sum")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((np.zeros((2, 3), np.int64),), "int64"),
        ((np.zeros((2, 3), np.complex64),), "complex64"),
        ((np.zeros((2, 0), np.float32),), "0 classes"),
        ((np.float32(1.0),), "single number"),
        ((np.zeros((2, 3)), [0]), "(1,)"),
        ((np.zeros((2, 3)), np.zeros((2, 2))), "(2, 2)"),
        ((np.zeros((2, 3)), [0, 1], "float61"), "float61"),
    ],
)
@pytest.mark.parametrize("judge", JUDGES)
def test_values_that_do_not_fit_raise(judge: Any, arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(nanhunt.NanhuntError) as raised:
        judge(*arguments)
    assert said in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize(
    "options", [{"class_weights": [1.0]}, {"class_axis": 5}, {"selekt": "NH1"}, {"select": "NH999"}]
)
def test_options_that_do_not_fit_raise(options: dict[str, Any]) -> None:
    with pytest.raises(nanhunt.NanhuntError):
        nanhunt.check(np.zeros((2, 3)), [0, 1], **options)


@pytest.mark.parametrize(
    "options",
    [
        {"reduction": "median"}, {"fail_on": "warnings"}, {"label_smoothing": 2.0}, {"max_rows": 0},
        {"stored_dtype": "float61"},
    ],
)  # fmt: skip
def test_values_of_options_that_are_not_allowed_raise(options: dict[str, Any]) -> None:
    with pytest.raises(nanhunt.NanhuntError):
        nanhunt.check(np.zeros((2, 3)), [0, 1], **options)


def test_targets_in_memory_do_not_go_with_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    with pytest.raises(nanhunt.NanhuntError, match="memory"):
        nanhunt.check(tmp_path / "x.npy", np.array([0, 1]))


def test_a_traceback_says_what_to_do() -> None:
    with pytest.raises(nanhunt.NanhuntError) as raised:
        nanhunt.check([[1.0, 2.0]], dtyp="float16")
    assert raised.value.hint
    assert traceback.format_exception_only(raised.value)[-1].strip() == raised.value.hint


def test_select_takes_a_name_or_several() -> None:
    x = np.array(LOGITS, np.float32)
    assert [f.code for f in nanhunt.check(x, LABELS, select="exp-overflow").findings] == ["NH101"]
    assert nanhunt.check(x, LABELS, ignore=["NH1", "NH2"]).ok
    assert nanhunt.check(x, LABELS, fail_on="error").ok


def test_torchs_own_names_lead_to_the_keyword() -> None:
    with pytest.raises(nanhunt.NanhuntError) as raised:
        nanhunt.check(np.zeros((2, 3)), labels=[0, 1])
    assert raised.value.hint.startswith("Did you mean targets?")


def test_str_is_the_report_and_repr_the_verdict() -> None:
    report = nanhunt.check(np.array([[1000.0, 0.0]], np.float32), [1])
    assert str(report).splitlines()[1].strip() == (
        "WARNING float32: the only row breaks naive code; F.cross_entropy survives."
    )
    assert repr(report).startswith("<nanhunt.Report: ")
    found = nanhunt.diff({"w": np.zeros(2)}, {"w": np.ones(2)})
    assert str(found).startswith("DIFFERENT ")


def test_lists_of_rows_in_a_dict_are_arrays() -> None:
    rows, labels = [[1.0, 2.0, 300.0], [4.0, float("nan"), 6.0]], [0, 1]
    (of_lists,) = nanhunt.check({"logits": rows, "targets": labels}).tensors
    (of_arrays,) = nanhunt.check({"logits": np.array(rows), "targets": np.array(labels)}).tensors
    assert of_lists.findings == of_arrays.findings
    assert (of_lists.shape, of_lists.findings[0].rows) == ((2, 3), (1,))
    (bce,) = nanhunt.check({"logits": [1.0, 17.0], "targets": [1, 0]}, op="bce").tensors
    assert (bce.shape, bce.affected_rows) == ((2,), 1)


def test_rows_of_unequal_length_are_refused_and_tokens_left_aside() -> None:
    with pytest.raises(NanhuntError, match=r"^logits is no array of numbers: its rows"):
        nanhunt.check({"logits": [[1.0, 2.0], [3.0]], "targets": [0, 1]})
    logits = np.zeros((2, 3), np.float32)
    (error,) = nanhunt.check({"logits": logits, "w": [[1.0], [2.0, 3.0]]}).errors
    assert (error.file, error.hint) == ("<memory>:w", "Give rows of equal length.")
    assert nanhunt.check({"logits": logits, "input_ids": [[1], [2, 3]]}).errors == ()


def test_numbers_of_an_optimizers_settings_stay_single() -> None:
    report = nanhunt.check({"w": np.ones((2, 2), np.float32), "groups": [{"betas": (0.9, 0.999)}]})
    assert {"groups.0.betas.0", "groups.0.betas.1"} <= {tensor.tensor for tensor in report.tensors}
