"""``--format sarif``: SARIF 2.1.0, which GitHub's code scanning and other viewers of findings read.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html; what GitHub needs of it:
https://docs.github.com/en/code-security/code-scanning/integrating-with-code-scanning/sarif-support-for-code-scanning
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from nanhunt import __version__
from nanhunt.literal import literal_json, literal_lines
from nanhunt.operations.rules import RULES
from nanhunt.render import phrases, totals
from nanhunt.results.finding import Finding, Severity
from nanhunt.results.report import ReadError, Report
from nanhunt.results.verdict import fails

LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}
MOST = 5000
"""GitHub refuses more results of a run; the gravest are kept."""


@dataclass(frozen=True)
class Result:
    """One finding at one place."""

    file: str
    place: str
    """File and tensor."""
    finding: Finding
    text: str
    fails: bool
    """Whether it fails the run; else it is a note, whatever its severity."""


def render(report: Report) -> str:
    """The log file: a result for every finding, a notification for every input that could not be read."""
    results = [
        Result(
            tensor.file,
            f"{phrases.place(tensor)} in {tensor.judged_in}",
            finding,
            phrases.message(finding),
            fails(finding, tensor),
        )
        for group in totals.groups(report)
        for tensor in group
        for finding in tensor.findings
    ]
    return document(results, report.errors)


def document(results: Iterable[Result], errors: Iterable[ReadError]) -> str:
    """A log of one run."""
    kept = sorted(results, key=lambda each: -each.finding.severity.rank)[:MOST]
    codes = sorted({each.finding.code: each.finding for each in kept}.items())
    notes = [
        {
            "level": "error",
            "message": {"text": literal_lines(f"{error.message}\n{error.hint}".strip())},
            "locations": [_location(error.file)],
        }
        for error in errors
    ]
    return log([rule(found.code, found.name) for _, found in codes], [_result(each) for each in kept], notes)


def log(
    rules: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]], notes: Sequence[dict[str, Any]] = ()
) -> str:
    """The document of one run, from the objects of the format."""
    driver = {"name": "nanhunt", "version": __version__, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": not notes, "toolExecutionNotifications": notes}],
        "results": results,
        "columnKind": "unicodeCodePoints",
    }
    whole = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return literal_json(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")


def rule(code: str, name: str) -> dict[str, Any]:
    """A rule as the catalogue tells it; one that is not in it has its name alone."""
    told: dict[str, Any] = {"id": code, "name": name}
    known = RULES.get(code)  # a report of a newer version may name another
    if known is not None:
        told["shortDescription"] = {"text": known.what}
        told["fullDescription"] = {"text": known.why}
        told["help"] = {"text": known.fix}
        told["defaultConfiguration"] = {"level": LEVELS[known.severity]}
    return told


def _result(each: Result) -> dict[str, Any]:
    return {
        "ruleId": each.finding.code,
        "level": LEVELS[each.finding.severity] if each.fails else "note",
        "message": {"text": literal_lines(f"{each.place}\n{each.text}")},
        "locations": [_location(each.file)],
        # Results of two runs are the same when rule and place are, whatever the numbers.
        "partialFingerprints": {"nanhunt/v1": literal_lines(f"{each.finding.code} {each.place}")},
    }


def _location(file: str) -> dict[str, Any]:
    """A tensor file has no lines; GitHub shows nothing that has none."""
    return location(file, {"startLine": 1})


def location(file: str, region: Mapping[str, int]) -> dict[str, Any]:
    """A place in a file."""
    uri = quote(_encoded(PurePath(file).as_posix())) if file else "-"
    return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": dict(region)}}


def _encoded(path: str) -> bytes:
    """A name that is no UTF-8 keeps its bytes; one that only an edited report can have, its surrogates."""
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogatepass")
