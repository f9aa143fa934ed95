"""``nanhunt op``."""

from __future__ import annotations

from typing import Annotated

import typer

from nanhunt.cli.options import starting
from nanhunt.operations.options import operations

OPTIONS = ()


def op(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="An operation.", autocompletion=starting(operations)),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Explain all of them.")] = False,
) -> None:
    """Explain an operation: its tensors, options, ways of writing it, rules."""
    from nanhunt.cli import explain

    explain.explain_operations(name, every=every)
