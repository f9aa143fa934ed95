"""``nanhunt report``."""

from __future__ import annotations

from typing import Annotated

import typer

from nanhunt.cli.options import Given, OutputOptions
from nanhunt.results.options import ReportOptions

OPTIONS = (ReportOptions, OutputOptions)


def report(
    given: Given,
    reports: Annotated[
        list[str],
        typer.Argument(metavar="REPORT...", help="JSON reports saved with --output, or one saved by diff."),
    ],
) -> None:
    """Merge saved JSON reports and render them again, without the tensors."""
    from nanhunt.cli import difference, judge

    compared = difference.saved(reports)
    if compared is None:
        judge.merge_saved(given, reports)
    else:
        difference.show(given, compared, reports)
