"""Pass or fail: decided here and nowhere else, by the options that each tensor was judged under.

The exit code, the baseline and every renderer ask these functions, so they cannot disagree.
"""

from __future__ import annotations

import dataclasses

from nanhunt.results.exit_code import ExitCode
from nanhunt.results.finding import Finding, Severity
from nanhunt.results.report import Report
from nanhunt.results.tensor import TensorReport

NEVER = "never"
DEFAULT = Severity.WARNING


def fails(finding: Finding, tensor: TensorReport) -> bool:
    """Whether a finding of ``tensor`` fails the run: new, and as severe as its ``fail_on`` asks at least."""
    least = tensor.options.get("fail_on")
    if finding.known or least == NEVER:
        return False
    return finding.severity.rank >= (Severity(least) if least in list(Severity) else DEFAULT).rank


def failing(report: Report) -> int:
    """How many findings fail the run."""
    return sum(fails(finding, tensor) for tensor in report.tensors for finding in tensor.findings)


def exit_code(report: Report) -> ExitCode:
    """2 when an input could not be read, else 1 when a finding fails, else 0."""
    if report.errors:
        return ExitCode.ERROR
    return ExitCode.FINDINGS if failing(report) else ExitCode.CLEAN


def decided(report: Report) -> Report:
    """``report`` with the exit code that its findings and errors ask for."""
    return dataclasses.replace(report, exit_code=int(exit_code(report)))


def under(report: Report, fail_on: str) -> Report:
    """``report`` judged anew: every tensor under this ``fail_on`` (error, warning, note or never)."""
    tensors = tuple(
        dataclasses.replace(tensor, options={**tensor.options, "fail_on": fail_on})
        for tensor in report.tensors
    )
    options = {**report.options, "fail_on": fail_on}
    return decided(dataclasses.replace(report, options=options, tensors=tensors))
