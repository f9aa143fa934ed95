"""Several jobs, the same file names: every tensor stays one of its own, and says which job it is from."""

from __future__ import annotations

from judgements import judged

from nanhunt.render import REPORT_FORMATS, render
from nanhunt.results.finding import Severity
from nanhunt.results.origin import kept_apart
from nanhunt.results.report import ReadError, Report, merge

JOBS = ("job-1.json", "job-2.json", "job-3.json")


def test_three_jobs_with_one_file_name_are_three_tensors() -> None:
    reports = {name: Report(tensors=(judged("dumps/x.npz", Severity.ERROR),)) for name in JOBS}
    total = merge(kept_apart(reports))
    assert [tensor.origin for tensor in total.tensors] == list(JOBS)
    for format in REPORT_FORMATS:
        assert all(name in render(total, format) for name in JOBS), format
    assert "3 tensors in 3 files" in render(total, "text")


def test_counted_tensors_and_what_was_not_read_say_it_too() -> None:
    one = Report(
        tensors=(judged("x.npz"), judged("y.npz")), errors=(ReadError("z", "damaged", ""),)
    ).counted()
    two = Report(tensors=(judged("x.npz", Severity.NOTE),), errors=(ReadError("z", "missing", ""),))
    total = merge(kept_apart({"1.json": one, "2.json": two}))
    assert [(group.origin, dict(group.files)) for group in total.healthy] == [
        ("", {"y.npz": 1}),
        ("1.json", {"x.npz": 1}),
    ]
    assert [error.origin for error in total.errors] == ["1.json", "2.json"]


def test_a_matrix_of_jobs_by_dtype_is_one_tensor_in_two_dtypes() -> None:
    reports = {dtype: Report(tensors=(judged("x.npz", dtype=dtype),)) for dtype in ("float16", "float32")}
    total = merge(kept_apart(reports))
    assert {tensor.origin for tensor in total.tensors} == {""}
    assert "1 tensor in 1 file" in render(total, "text")


def test_without_names_two_judgements_in_one_dtype_are_two_tensors() -> None:
    one = Report(tensors=(judged("x.npz", Severity.ERROR),))
    assert "2 tensors in 1 file" in render(one + one, "text")
