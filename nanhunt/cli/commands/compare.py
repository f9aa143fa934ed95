"""``nanhunt compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from nanhunt.cli.options import Given, ScanOutputOptions, SettingsOptions
from nanhunt.scan.options import Options
from nanhunt.scan.work import WorkOptions

OPTIONS = (Options, ScanOutputOptions, WorkOptions, SettingsOptions)


def compare(
    given: Given,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH]", help="A file, a folder, or - for standard input.")
    ] = None,
) -> None:
    """Run every way of writing the loss, or of another --op, over every row; without PATH, on a batch of 3 x 3."""
    from nanhunt.cli import judge

    judge.judge(given, judge.only_one(paths or []), compares=True)
