"""diff: from its parsed options to its exit code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import typer

from nanhunt.cli import output as files
from nanhunt.cli import process
from nanhunt.cli.judge import append_summary, check_files, set_limits
from nanhunt.cli.options import Given, WriteOptions
from nanhunt.cli.progress import Progress
from nanhunt.difference.options import DiffOptions
from nanhunt.errors import NanhuntError
from nanhunt.render import format_for
from nanhunt.render.difference import render_difference
from nanhunt.results.exit_code import INTERRUPTED, ExitCode


def compare(given: Given, a: str, b: str) -> None:
    """Compares two inputs, writes what differs, exits with 0 (same), 1 (different), 2 (not whole) or 130 (Ctrl-C).

    Raises NanhuntError where both are standard input, and as ``Comparison.paths`` does.
    """
    options, output = given.part(DiffOptions), given.part(WriteOptions)
    check_files(output, [a, b])
    if a == b == "-":
        raise NanhuntError("Both A and B are standard input.", "Name one of them.")
    set_limits()
    from nanhunt.difference.comparison import Comparison

    with Progress() as progress:
        comparison = Comparison(options, advance=progress.advance, ends_with_what_is_known=True)
        found = comparison.paths(a, b)
    if found.exit_code == INTERRUPTED:
        process.complain("interrupted; this is what was known.")
    if output.exit_zero and found.exit_code == ExitCode.FINDINGS:
        found = replace(found, exit_code=int(ExitCode.CLEAN))
    verbosity = int(output.verbose) - int(output.quiet)
    for path in output.output:
        files.write(path, render_difference(found, format_for(path), verbosity=verbosity))
    if output.format == "github":
        append_summary(render_difference(found, "markdown"))
    look: dict[str, Any] = {"width": files.width(), "color": files.has_color(), "ascii": files.is_ascii()}
    files.say(render_difference(found, output.format, verbosity=verbosity, **look))
    raise typer.Exit(found.exit_code)
