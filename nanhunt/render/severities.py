"""How grave the findings of a tensor are, and how many of its units they concern."""

from __future__ import annotations

from collections.abc import Iterable

from nanhunt.render.phrases import units
from nanhunt.results.finding import Finding, Severity
from nanhunt.results.tensor import TensorReport


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Most severe first, then by code; findings already known come after new ones."""
    return sorted(findings, key=lambda finding: (finding.known, -finding.severity.rank, finding.code))


def worst(tensor: TensorReport) -> Severity | None:
    """The highest severity found; None for a healthy tensor."""
    return max((finding.severity for finding in tensor.findings), key=lambda found: found.rank, default=None)


def affected(tensor: TensorReport, *severities: Severity) -> tuple[int, bool]:
    """Rows with a finding of these severities, and whether that is exact or only a lower bound."""
    found = [finding for finding in tensor.findings if finding.severity in severities]
    if len(found) == len(tensor.findings) and tensor.affected_rows:
        return tensor.affected_rows, True
    most = max((finding.count for finding in found), default=0)
    if len(found) <= 1 or most == units(tensor):
        return most, True
    # A row's cause is its first rule: one of these, unless a finding of another severity comes before one of them.
    last = max(finding.code for finding in found)
    hidden = any(each.code < last for each in tensor.findings if each.severity not in severities)
    by_cause = sum(caused(tensor, severity) for severity in severities)
    return max(most, by_cause), bool(tensor.strip) and not hidden


def caused(tensor: TensorReport, severity: Severity) -> int:
    """Rows whose cause, the first rule that holds for them, is of that severity; 0 where it was not counted."""
    codes = {finding.code for finding in tensor.findings if finding.severity is severity}
    return sum(number for item in tensor.strip for code, number in item.causes if code in codes)


def bad_rows(tensor: TensorReport) -> int:
    """Rows at which something breaks: findings of warning or error."""
    return affected(tensor, Severity.WARNING, Severity.ERROR)[0]
