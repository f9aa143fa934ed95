"""What is written is what the schema describes: nothing is missing, nothing more is there."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from judgements import judged

import nanhunt
from nanhunt.results.finding import Severity
from nanhunt.results.report import NotLookedAt, ReadError, Report
from nanhunt.results.schema import schema

GOLDEN = Path(__file__).parents[1] / "golden" / "report.py"
VALIDATOR = Draft202012Validator(schema())


def problems(report: Report, *, verbose: bool = False) -> list[str]:
    """What the schema has against the report as it is saved."""
    body = json.loads(report.to_json(verbose=verbose))
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(body)]


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(schema())
    assert schema()["properties"]["format_version"]["const"] == 2


@pytest.mark.parametrize("verbose", [False, True])
def test_reports_keep_to_it(verbose: bool) -> None:
    golden: Any = runpy.run_path(str(GOLDEN))["REPORT"]
    counted = Report(tensors=(judged("a.npy"), judged("b.npy", Severity.ERROR))).counted()
    other = Report(
        errors=(ReadError("c", "damaged", "", "job.json"),), not_looked_at=(NotLookedAt("d.onnx", "ONNX"),)
    )
    for report in (Report(), golden, counted, counted + other):
        assert problems(report, verbose=verbose) == []


def test_judged_samples_keep_to_it() -> None:
    samples = Path(__file__).parents[2] / "samples"
    for name in ("logits.npy", "batch.npz", "checkpoint.pt"):
        assert problems(nanhunt.check(str(samples / name)), verbose=True) == []
    assert problems(nanhunt.compare(str(samples / "logits.npy"), str(samples / "labels.npy"))) == []


@pytest.mark.parametrize(
    ("where", "value"),
    [("exit_code", "1"), ("errors", [{"file": "a"}]), ("format_version", 1), ("of_tomorrow", 1)],
)
def test_it_refuses_what_no_report_holds(where: str, value: object) -> None:
    body = json.loads(Report().to_json()) | {where: value}
    assert not VALIDATOR.is_valid(body)


def test_fields_are_described() -> None:
    told = schema()["$defs"]["TensorReport"]["properties"]["coordinates"]
    assert "Where it stands in a run" in told["description"]
