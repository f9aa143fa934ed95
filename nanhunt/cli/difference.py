"""diff, and report of what it saved: from parsed options to the exit code."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from nanhunt.cli import output as files
from nanhunt.cli import process
from nanhunt.cli.judge import append_summary, check_files, set_limits
from nanhunt.cli.options import Given, OutputOptions, WriteOptions
from nanhunt.cli.progress import Progress
from nanhunt.difference.options import DiffOptions
from nanhunt.errors import NanhuntError
from nanhunt.render import format_for
from nanhunt.render.difference import render_difference
from nanhunt.results.difference import Difference
from nanhunt.results.exit_code import INTERRUPTED, ExitCode
from nanhunt.results.options import ReportOptions


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
        comparison = Comparison(
            options, advance=progress.advance, expect=progress.expect, ends_with_what_is_known=True
        )
        found = comparison.paths(a, b)
    if found.exit_code == INTERRUPTED:
        process.complain("interrupted; this is what was known.")
    _finish(found, output)


def saved(paths: Sequence[str]) -> Difference | None:
    """The difference that one of the files holds, as diff saved it; None where they hold none.

    Raises NanhuntError where it is not whole, or not the only file: two comparisons do not add up.
    """
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue  # told by who reads reports
        if '"diff_format_version"' not in text:
            continue
        if len(paths) > 1:
            raise NanhuntError(
                f"{path} was saved by diff, which is shown by itself.", f"nanhunt report {shlex.quote(path)}"
            )
        try:
            return Difference.from_json(text)
        except ValueError as error:
            hint = "Save it again: `nanhunt diff A B --output diff.json`."
            raise NanhuntError(f"{path} cannot be read: {error}.", hint) from None
    return None


def show(given: Given, found: Difference, paths: Sequence[str]) -> None:
    """Writes a saved difference, of the one path, and exits with its code, or with that of ``--fail-on`` if typed.

    Raises NanhuntError for options that are about reports on tensors.
    """
    output = given.part(OutputOptions)
    check_files(output, paths)
    if output.baseline or output.statistics:
        raise NanhuntError(
            "A saved diff has no --baseline and no --statistics.",
            "What is known to differ is said to diff itself: --rtol, --max-ulp, --ignore, --exclude.",
        )
    if "fail_on" in given.typed:
        options = {**found.options, "fail_on": given.part(ReportOptions).fail_on}
        found = replace(found, options=options).decided()
    _finish(found, output)


def _finish(found: Difference, output: WriteOptions) -> None:
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
