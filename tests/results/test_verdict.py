"""One function decides pass or fail; exit code, baseline and every format ask it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from judgements import judged

from nanhunt.render import render
from nanhunt.results.baseline import mark_known
from nanhunt.results.finding import Severity
from nanhunt.results.report import ReadError, Report
from nanhunt.results.verdict import decided, exit_code, failing, fails, under

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


@pytest.mark.parametrize(
    ("fail_on", "failing_severities"),
    [("error", {ERROR}), ("warning", {ERROR, WARNING}), ("note", {ERROR, WARNING, NOTE}), ("never", set())],
)
def test_a_finding_fails_from_the_severity_on_that_its_tensor_asks_for(
    fail_on: str, failing_severities: set[Severity]
) -> None:
    tensor = judged("a.npy", ERROR, WARNING, NOTE, options={"fail_on": fail_on})
    assert {each.severity for each in tensor.findings if fails(each, tensor)} == failing_severities
    known = replace(tensor, findings=tuple(replace(each, known=True) for each in tensor.findings))
    assert failing(Report(tensors=(known,))) == 0


def test_without_an_option_warnings_fail() -> None:
    assert failing(Report(tensors=(judged("a.npy", ERROR, WARNING, NOTE),))) == 2


def test_what_could_not_be_read_outweighs_findings() -> None:
    report = Report(tensors=(judged("a.npy", ERROR),), errors=(ReadError("b", "m", "h"),))
    assert exit_code(report) == 2
    assert exit_code(replace(report, errors=())) == 1
    assert exit_code(Report()) == 0


def test_every_answer_agrees_per_tensor() -> None:
    """The one path with fail-on never passes; the exit code, JUnit and GitHub all say so, baseline or none."""
    calm = judged("attn.npy", ERROR, options={"fail_on": "never"})
    alone = decided(Report({"fail_on": "warning"}, (calm,)))
    for report in (alone, mark_known(alone, Report())):
        assert report.exit_code == 0
        junit = ET.fromstring(render(report, "junit"))
        assert (junit.get("failures"), junit.get("tests")) == ("0", junit.get("tests"))
        assert not re.search("^::(error|warning)", render(report, "github"), re.MULTILINE)
        for format in ("text", "markdown", "html", "github"):
            assert "1 error; none of them fails the run" in render(report, format)
    both = decided(replace(alone, tensors=(calm, judged("head.npy", ERROR))))
    assert both.exit_code == 1
    assert ET.fromstring(render(both, "junit")).get("failures") == "1"
    for format in ("text", "markdown", "html", "github"):
        assert "2 errors; 1 of them does not fail the run" in render(both, format)


def test_a_threshold_for_all_replaces_their_own() -> None:
    calm = judged("attn.npy", WARNING, options={"fail_on": "never"})
    report = Report({"fail_on": "warning"}, (calm,))
    assert under(report, "warning").exit_code == 1
    assert json.loads(under(report, "warning").to_json())["tensors"][0]["options"]["fail_on"] == "warning"
