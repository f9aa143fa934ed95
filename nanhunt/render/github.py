r"""``--format github``: workflow commands, which GitHub shows as annotations.

Escaping as in actions/toolkit's command.ts: "%", "\r" and "\n" in the text, ":" and "," too in properties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from nanhunt.literal import literal, literal_lines
from nanhunt.render import phrases, proofs, totals
from nanhunt.results.finding import Finding, Severity
from nanhunt.results.report import ReadError, Report
from nanhunt.results.tensor import TensorReport
from nanhunt.results.verdict import fails

MOST = 10
"""GitHub shows this many annotations of a level per step and drops the rest in silence."""
LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


@dataclass(frozen=True)
class Annotation:
    """A line of GitHub's under a file."""

    file: str
    title: str
    text: str


def render(report: Report) -> str:
    """At most ten commands a level, most severe first, and a summary line that is no command.

    What does not fail the run is a notice, whatever its severity.
    """
    found: dict[str, list[Annotation]] = {level: [] for level in LEVELS.values()}
    found["error"] += [_unread(error) for error in report.errors]
    for group in totals.groups(report):
        for tensor in group:
            for finding in tensor.findings:
                level = LEVELS[finding.severity] if fails(finding, tensor) else "notice"
                found[level].append(_finding(finding, tensor))
    lines = [line for level, annotations in found.items() for line in commands(level, annotations)]
    return "\n".join([*lines, f"nanhunt: {totals.summary(report)}"]) + "\n"


def _unread(error: ReadError) -> Annotation:
    return Annotation(error.file, "nanhunt: not read", f"{error.message}\n{error.hint}".strip())


def _finding(finding: Finding, tensor: TensorReport) -> Annotation:
    fixes = [remedy for remedy in finding.remedies if remedy.works]
    advice = [f"Fix: {remedy.title}, {proofs.proof(remedy, tensor)}" for remedy in fixes[:1]]
    advice = advice or [line for line in [proofs.explanation(finding, tensor)] if line]
    lines = [f"{phrases.place(tensor)} in {tensor.judged_in}", phrases.message(finding), *advice]
    return Annotation(tensor.file, f"nanhunt: {proofs.heading(finding, tensor)}", "\n".join(lines))


def commands(level: str, annotations: Sequence[Annotation]) -> list[str]:
    """The tenth of more than ten says how many more there are."""
    shown = list(annotations)
    if len(shown) > MOST:
        more = len(shown) - MOST + 1
        text = f"and {phrases.count(more)} more of level {level}: the whole list is in the report"
        shown = [*shown[: MOST - 1], Annotation("", f"nanhunt: {phrases.count(more)} more", text)]
    return [_command(level, annotation) for annotation in shown]


def _command(level: str, annotation: Annotation) -> str:
    # Annotations attach to a path as the repository spells it: dump.npy, not ./dump.npy.
    file = PurePath(annotation.file).as_posix() if annotation.file else ""
    properties = {"file": file, "title": annotation.title}
    named = ",".join(f"{name}={_property(value)}" for name, value in properties.items() if value)
    return f"::{level} {named}::{_data(literal_lines(annotation.text))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(literal(text)).replace(":", "%3A").replace(",", "%2C")
