"""``nanhunt run``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from nanhunt.cli.options import Given, SettingsOptions
from nanhunt.watch.options import RunOptions, WatchOptions

OPTIONS = (WatchOptions, RunOptions, SettingsOptions)


class Command(TyperCommand):
    """Passes on everything after the script (or after ``-m MODULE``) untouched, options and ``--`` included."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Mark where the script's own arguments begin."""
        parsed: list[str] = super().parse_args(ctx, _marked(args, _taking_a_value(self.params)))
        return parsed


def _taking_a_value(params: Sequence[Any]) -> set[str]:
    options = (item for item in params if item.param_type_name == "option")
    valued = (item for item in options if not (item.is_flag or item.count))
    return {name for item in valued for name in item.opts}


def _marked(args: list[str], valued: set[str]) -> list[str]:
    """The arguments with ``--`` in front of the script, or behind the module's name."""
    place = 0
    while place < len(args) and args[place].startswith("-") and args[place] not in ("-", "--"):
        option = args[place]
        place += 2 if option in valued else 1
        if option.startswith("-m"):
            break
    return [*args[:place], "--", *args[place:]] if args[place : place + 1] != ["--"] else args


def run(
    given: Given,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="SCRIPT [ARGUMENTS]...", help="Script to run, - for standard input."),
    ] = None,
    module: Annotated[
        str, typer.Option("-m", metavar="MODULE", help="Run a module instead, as python -m does.")
    ] = "",
) -> None:
    """Run a training script and, at its first NaN or infinity, name the operation and line that made it.

    The script behaves as always. It is stopped with exit code 1 at the first bad step, unless --continue is given;
    otherwise the exit code is its own.
    """
    from nanhunt.cli import run

    run.run(given, words or [], module)
