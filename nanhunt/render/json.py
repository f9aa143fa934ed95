"""``--format json``: the contract for programs. The report knows how to write itself."""

from __future__ import annotations

from nanhunt.results.report import Report


def render(report: Report) -> str:
    """Strictly valid JSON, as ``Report.from_json`` reads it."""
    return report.to_json()
