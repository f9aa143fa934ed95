"""``nanhunt last-good``: a path for the shell on standard output, and why newer ones were refused on the other."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from nanhunt.cli import output, process
from nanhunt.cli.options import AnswerOptions, Given
from nanhunt.load.checkpoints import Checkpoint, checkpoints
from nanhunt.load.options import SeriesOptions
from nanhunt.load.wording import listed
from nanhunt.results.codec import encode
from nanhunt.results.exit_code import ExitCode
from nanhunt.scan.last_good import Refused, last_good


def answer(given: Given, run: str) -> None:
    """Says it and exits: 0, or 1 where no checkpoint is good. Raises NanhuntError for what is no run."""
    series = _series(run, given.part(SeriesOptions).layout)
    found = last_good(series, _complain)
    good = found.checkpoint
    if given.part(AnswerOptions).json:
        told = {"last_good": encode(good), "refused": encode(found.refused), "opened_files": found.opened}
        output.say(json.dumps(told, indent=2) + "\n")
    elif good is not None and len(good.paths) > 1:  # a shell would take two lines for one path
        process.complain(
            f"step {good.step} is good, and lies in {len(good.paths)} places: {listed(good.paths)}.",
            f"Every rank resumes from its own: nanhunt last-good {Path(good.paths[0]).parent} and so on, or --json.",
        )
        good = None
    elif good is not None:
        output.say(f"{good.paths[0]}\n")
    raise typer.Exit(ExitCode.CLEAN if good is not None else ExitCode.FINDINGS)


def _series(run: str, layout: str | None) -> list[Checkpoint]:
    """The checkpoints of a run; none, and why, where there are only dumps or nothing is called after a step."""
    series = checkpoints(run, layout)
    if not series:
        process.complain(
            f"{run} holds no checkpoints that are called after a step or an epoch.",
            "Say how they are called: --layout 'saved/{step}.pt'",
        )
    elif series[-1].is_dump:
        process.complain(
            f"{run} holds dumps of what modules computed, and no checkpoints to resume from.",
            f"Where it began: nanhunt check {run} --first",
        )
        return []
    return series


def _complain(refused: Refused) -> None:
    process.complain(f"not {listed(refused.paths)}: {refused.why}.")
