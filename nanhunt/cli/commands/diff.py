"""``nanhunt diff``."""

from __future__ import annotations

from typing import Annotated

import typer

from nanhunt.cli.options import Given, SettingsOptions, WriteOptions
from nanhunt.difference.options import DiffOptions

OPTIONS = (DiffOptions, WriteOptions, SettingsOptions)


def diff(
    given: Given,
    a: Annotated[str, typer.Argument(metavar="A", help="A file or folder: the reference.")],
    b: Annotated[str, typer.Argument(metavar="B", help="A file or folder of any other format.")],
) -> None:
    """Compare two dumps or checkpoints: what differs, by how much, where first, and whether it is rounding."""
    from nanhunt.cli import difference

    difference.compare(given, a, b)
