"""The text report's first lines on a folder of steps: its layout, where it began, and how it came."""

from __future__ import annotations

from nanhunt.render import growing, phrases, where
from nanhunt.render.terminal import Page
from nanhunt.results import series
from nanhunt.results.report import Report
from nanhunt.results.runup import curves

RUNS = 3


def runs(page: Page, report: Report, verbosity: int) -> None:
    """What was understood of the layout, and where it began."""
    found = series.runs(report)
    for run in found[:RUNS]:
        told = where.sentences(run)
        if verbosity >= 0:
            page.line((where.understood(run), "dim"))
        for line in told:
            page.line((line, "bold" if line is told[0] else ""))
        came = growing.sentences(curves(report, run.name, run.origin), run.unit, ascii=page.ascii)
        for line in came if verbosity >= 0 or told else ():
            page.line((line, ""))
        if told or verbosity >= 0:
            page.gap()
    for said in report.assumed:
        page.line((said, ""))
    if report.assumed:
        page.gap()
    if len(found) > RUNS and verbosity >= 0:
        page.line((f"and {phrases.plural(len(found) - RUNS, 'more run')}", "dim"))
        page.gap()
