"""The Typer application: which commands there are. What is typed after one stands in its file in ``commands``."""

from __future__ import annotations

import difflib
import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nanhunt import __version__
from nanhunt.cli.options import command
from nanhunt.errors import NanhuntError

WHAT = "Find the rows, the format and the cause when a loss, an operation or a weight turns NaN, and prove the fix."
COMMANDS = ("check", "compare", "run", "diff", "report", "last-good", "rule", "op", "schema")
"""In the order in which --help lists them."""


class Commands(TyperGroup):
    """The commands, each made when it is asked for.

    To make the flags of all of them takes longer than to judge a small file. Any: Typer may bring a click of its own
    along.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """All names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, None where there is none."""
        if cmd_name not in self.commands and cmd_name in COMMANDS:
            self.commands[cmd_name] = _made(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Raises NanhuntError for a command that does not exist, with the one that it is like."""
        if args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise NanhuntError(f"No such command: {args[0]}.{meant}", "See `nanhunt --help`.")
        return super().resolve_command(ctx, args)


def _made(name: str) -> Any:
    home = importlib.import_module(f"nanhunt.cli.commands.{name.replace('-', '_')}")
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    function = getattr(home, name.replace("-", "_"))
    command(alone, *home.OPTIONS, name=name, cls=getattr(home, "Command", None))(function)
    return typer.main.get_command(alone)


app = typer.Typer(
    name="nanhunt",
    cls=Commands,
    help=WHAT,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"nanhunt {__version__}")
        raise typer.Exit


@app.callback(help=WHAT)
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What all commands share."""
