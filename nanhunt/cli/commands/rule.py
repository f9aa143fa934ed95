"""``nanhunt rule``."""

from __future__ import annotations

from typing import Annotated

import typer

from nanhunt.cli.options import starting
from nanhunt.operations.options import rules

OPTIONS = ()


def rule(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[CODE|NAME]", help="A rule, by code or name.", autocompletion=starting(rules)
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Explain all of them.")] = False,
) -> None:
    """Explain a rule: what, why, how to fix."""
    from nanhunt.cli import explain

    explain.explain_rules(name, every=every)
