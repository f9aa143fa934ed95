"""``--format json``: the report as data, for other programs and for ``nanhunt report``."""

from __future__ import annotations

from nanhunt.results.report import Report


def render(report: Report, *, verbosity: int = 0) -> str:
    """Strictly valid JSON, as ``Report.from_json`` reads it; healthy tensors are counted, or listed if verbose."""
    return report.to_json(verbose=verbosity > 0)
