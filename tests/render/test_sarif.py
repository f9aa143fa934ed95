"""SARIF: the fields that the standard and GitHub's code scanning ask for."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

import nanhunt
from nanhunt.render import format_for, render
from nanhunt.render.difference import render_difference
from nanhunt.results.report import ReadError, Report


def log_of(text: str):
    body = json.loads(text)
    assert body["version"] == "2.1.0"
    (run,) = body["runs"]
    known = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    for result in run["results"]:
        assert result["ruleId"] in known
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uri"]
        assert location["physicalLocation"]["region"]["startLine"] == 1
        assert result["partialFingerprints"]
    return run


def report() -> Report:
    return nanhunt.check({"logits": np.array([[1000.0, 0.0], [np.nan, 1.0]], np.float32)})


def test_a_result_for_every_finding_the_gravest_first() -> None:
    run = log_of(render(report(), "sarif"))
    assert run["results"][0]["ruleId"] == "NH001"
    assert {"NH101", "NH201"} <= {result["ruleId"] for result in run["results"]}
    assert run["invocations"][0]["executionSuccessful"] is True
    assert run["tool"]["driver"]["version"] == nanhunt.__version__
    assert format_for("x.sarif") == "sarif"


def test_what_does_not_fail_is_a_note_and_what_cannot_be_read_a_notification() -> None:
    found = nanhunt.check({"logits": np.array([[1000.0, 0.0]], np.float32)}, fail_on="never")
    failed = replace(found, errors=(ReadError("a b.pt", "a b.pt is empty.", "Write it again."),))
    run = log_of(render(failed, "sarif"))
    assert {result["level"] for result in run["results"]} == {"note"}
    (notification,) = run["invocations"][0]["toolExecutionNotifications"]
    assert notification["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "a%20b.pt"


def test_two_dumps() -> None:
    found = nanhunt.diff({"w": np.array([1.0, 2.0])}, {"w": np.array([1.0, np.inf]), "v": np.zeros(2)})
    run = log_of(render_difference(found, "sarif"))
    assert [result["ruleId"] for result in run["results"]] == ["NHD101", "NHD203"]
