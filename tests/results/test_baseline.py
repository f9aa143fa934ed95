"""What an earlier report holds is known, under every spelling of its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from judgements import judged

from nanhunt.results.baseline import mark_known
from nanhunt.results.finding import Severity
from nanhunt.results.report import Report

WARNING = Severity.WARNING


@pytest.mark.parametrize("now", ["job/a.npy", "./job/a.npy", "job//x/../a.npy", "ABSOLUTE/job/a.npy"])
@pytest.mark.parametrize("before", ["job/a.npy", "./job/a.npy", "ABSOLUTE/job/a.npy"])
def test_a_file_is_known_under_every_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, now: str
) -> None:
    monkeypatch.chdir(tmp_path)
    old, new = (
        Report(tensors=(judged(name.replace("ABSOLUTE", str(tmp_path)), WARNING),)) for name in (before, now)
    )
    assert mark_known(new, old).exit_code == 0
    assert mark_known(new, Report(tensors=(judged("other/a.npy", WARNING),))).exit_code == 1


def test_more_rows_than_before_are_new() -> None:
    old = Report(tensors=(judged("a.npy", WARNING, count=3),))
    for count, code in ((2, 0), (3, 0), (4, 1)):
        assert mark_known(Report(tensors=(judged("a.npy", WARNING, count=count),)), old).exit_code == code


def test_another_dtype_or_another_report_is_new() -> None:
    old = Report(tensors=(judged("a.npy", WARNING, origin="job-1.json"),))
    assert mark_known(Report(tensors=(judged("a.npy", WARNING, origin="job-2.json"),)), old).exit_code == 1
    assert mark_known(Report(tensors=(judged("a.npy", WARNING, origin="job-1.json"),)), old).exit_code == 0
    plain = Report(tensors=(judged("a.npy", WARNING),))
    assert mark_known(Report(tensors=(judged("a.npy", WARNING, origin="job-2.json"),)), plain).exit_code == 0
    assert mark_known(Report(tensors=(judged("a.npy", WARNING, dtype="float16"),)), plain).exit_code == 1


def test_a_deleted_working_folder_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    report = Report(tensors=(judged("a.npy", WARNING),))
    assert mark_known(report, report).exit_code == 0
