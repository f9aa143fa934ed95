"""``nanhunt last-good``."""

from __future__ import annotations

from typing import Annotated

import typer

from nanhunt.cli.options import AnswerOptions, Given
from nanhunt.load.options import SeriesOptions

OPTIONS = (SeriesOptions, AnswerOptions)


def last_good(
    given: Given,
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder that holds the checkpoints.")],
) -> None:
    """Print the path of the newest checkpoint that is whole and finite: train.py --resume "$(nanhunt last-good RUN)".

    Weights and optimizer state of all shards and ranks are looked at, newest first, and no more than it takes.
    Exit code 1 and no path where there is none; why newer ones were refused is told on standard error.
    """
    from nanhunt.cli import last_good as answering

    answering.answer(given, run)
