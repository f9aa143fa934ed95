"""The Typer application: options in, a handful of calls, an exit code. No arithmetic, no formatting."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nanhunt import __version__
from nanhunt.cli.options import (
    AnswerOptions,
    Given,
    OutputOptions,
    ScanOutputOptions,
    SettingsOptions,
    WriteOptions,
    command,
    starting,
)
from nanhunt.cli.run import register
from nanhunt.difference.options import DiffOptions
from nanhunt.errors import NanhuntError
from nanhunt.load.options import SeriesOptions
from nanhunt.operations.options import operations, rules
from nanhunt.results.options import ReportOptions
from nanhunt.scan.options import Options
from nanhunt.scan.work import WorkOptions

WHAT = "Find the rows, the format and the cause when a loss, an operation or a weight turns NaN, and prove the fix."


class Commands(TyperGroup):
    """Says which command a mistyped one is like, as only some versions of Typer do."""

    # Any: Typer may bring a click of its own along.
    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Raises NanhuntError for a command that does not exist."""
        if args[0] not in self.commands:
            near = difflib.get_close_matches(args[0], self.commands, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise NanhuntError(f"No such command: {args[0]}.{meant}", "See `nanhunt --help`.")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="nanhunt",
    cls=Commands,
    help=WHAT,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@command(app, Options, ScanOutputOptions, WorkOptions, SettingsOptions)
def check(
    given: Given,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files, folders, or - for standard input.")
    ],
) -> None:
    """Look for trouble in dumped logits, checkpoints or folders of them."""
    from nanhunt.cli import judge  # readers and operations: nothing that --help needs

    judge.judge(given, paths, compares=False)


@command(app, Options, ScanOutputOptions, WorkOptions, SettingsOptions)
def compare(
    given: Given,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH]", help="A file, a folder, or - for standard input.")
    ] = None,
) -> None:
    """Run every way of writing the loss, or of another --op, over every row; without PATH, on a batch of 3 x 3."""
    from nanhunt.cli import judge

    judge.judge(given, judge.only_one(paths or []), compares=True)


@command(app, DiffOptions, WriteOptions, SettingsOptions)
def diff(
    given: Given,
    a: Annotated[str, typer.Argument(metavar="A", help="A file or folder: the reference.")],
    b: Annotated[str, typer.Argument(metavar="B", help="A file or folder of any other format.")],
) -> None:
    """Compare two dumps or checkpoints: what differs, by how much, where first, and whether it is rounding."""
    from nanhunt.cli import difference

    difference.compare(given, a, b)


@command(app, ReportOptions, OutputOptions)
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


@command(app, SeriesOptions, AnswerOptions, name="last-good")
def last_good(
    given: Given,
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder that holds the checkpoints.")],
) -> None:
    """Print the path of the newest checkpoint that is whole and finite: train.py --resume "$(nanhunt last-good RUN)".

    Weights and optimizer state of all shards and ranks are looked at, newest first, and no more than it takes.
    Exit code 1 and no path where there is none; why newer ones were refused is told on standard error.
    """
    from nanhunt.cli import last_good as command_of  # NumPy: nothing that --help needs

    command_of.answer(given, run)


@app.command()
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
    from nanhunt.cli import explain  # the whole catalogue: no other command needs it to start

    explain.explain_rules(name, every=every)


@app.command()
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


@app.command()
def schema(
    of: Annotated[str, typer.Argument(metavar="[report|diff]", help="What is saved.")] = "report",
) -> None:
    """Print the JSON Schema of saved reports, or of what diff writes."""
    import json

    from nanhunt.cli import output
    from nanhunt.options import one_of
    from nanhunt.results import schema

    one_of("The schema of", of, ("report", "diff"))
    made = schema.schema() if of == "report" else schema.schema_of_differences()
    output.say(json.dumps(made, indent=2) + "\n")


register(app)


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
