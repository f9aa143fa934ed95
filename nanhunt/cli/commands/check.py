"""``nanhunt check``."""

from __future__ import annotations

from typing import Annotated

import typer

from nanhunt.cli.options import Given, ScanOutputOptions, SettingsOptions
from nanhunt.scan.options import Options
from nanhunt.scan.work import WorkOptions

OPTIONS = (Options, ScanOutputOptions, WorkOptions, SettingsOptions)


def check(
    given: Given,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files, folders, or - for standard input.")
    ],
) -> None:
    """Look for trouble in dumped logits, checkpoints or folders of them."""
    from nanhunt.cli import judge

    judge.judge(given, paths, compares=False)
