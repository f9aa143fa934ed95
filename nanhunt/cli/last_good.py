"""``nanhunt last-good``: a path for the shell on standard output, and why newer ones were refused on the other."""

from __future__ import annotations

import json

import typer

from nanhunt.cli import output, process
from nanhunt.cli.options import AnswerOptions, Given
from nanhunt.load.checkpoints import checkpoints
from nanhunt.load.options import SeriesOptions
from nanhunt.results.codec import encode
from nanhunt.results.exit_code import ExitCode
from nanhunt.scan.last_good import Refused, last_good


def answer(given: Given, run: str) -> None:
    """Says it and exits: 0, or 1 where no checkpoint is good. Raises NanhuntError for what is no run."""
    series = checkpoints(run, given.part(SeriesOptions).layout)
    if not series:
        process.complain(
            f"{run} holds no checkpoints that are called after a step or an epoch.",
            "Say how they are called: --layout 'saved/{step}.pt'",
        )
    found = last_good(series, _complain)
    good = found.checkpoint
    if given.part(AnswerOptions).json:
        told = {"last_good": encode(good), "refused": encode(found.refused), "opened_files": found.opened}
        output.say(json.dumps(told, indent=2) + "\n")
    elif good is not None:
        output.say("".join(f"{path}\n" for path in good.paths))
    raise typer.Exit(ExitCode.CLEAN if good is not None else ExitCode.FINDINGS)


def _complain(refused: Refused) -> None:
    process.complain(f"not {', '.join(refused.paths)}: {refused.why}.")
