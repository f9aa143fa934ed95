"""The newest checkpoint to go on from: whole, and finite in weights and optimizer state. Nothing more is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from nanhunt.errors import NanhuntError
from nanhunt.load import Container, NothingToCheck, NotNumbers, find, open_path
from nanhunt.load.checkpoints import Checkpoint, missing
from nanhunt.load.wording import printable
from nanhunt.operations import registry
from nanhunt.operations.run import Failed, Outcome, Run
from nanhunt.parallel import Fastest
from nanhunt.results.finding import Severity
from nanhunt.scan.options import Options


@dataclass(frozen=True)
class Refused:
    """A checkpoint that is not to be gone on from."""

    paths: tuple[str, ...]
    step: int
    why: str


@dataclass(frozen=True)
class LastGood:
    """What was found, newest first."""

    checkpoint: Checkpoint | None
    refused: tuple[Refused, ...]
    """Those that are newer."""
    opened: int
    """Files."""


def last_good(
    checkpoints: Sequence[Checkpoint], refuse: Callable[[Refused], None] = lambda _: None
) -> LastGood:
    """The newest of them that is whole and finite; ``refuse`` is told of every newer one at once.

    ``checkpoints``: of one run, oldest first.
    """
    refused: list[Refused] = []
    examination = Examination()
    for checkpoint in reversed(checkpoints):
        others = [other for other in checkpoints if other is not checkpoint]
        why = missing(checkpoint, others) or examination.fault(checkpoint.paths)
        if not why:
            return LastGood(checkpoint, tuple(refused), examination.opened)
        refused.append(Refused(checkpoint.paths, checkpoint.step, why))
        refuse(refused[-1])
    return LastGood(None, tuple(refused), examination.opened)


@dataclass
class Examination:
    """Opens the files of checkpoints, and counts them."""

    opened: int = 0
    _run: Run = field(default_factory=lambda: Run(Options(max_rows=1), Fastest()))

    def fault(self, paths: Sequence[str]) -> str:
        """The first thing found that is not readable or not finite, in words; "" for a good checkpoint."""
        try:
            files = find(paths).files
        except NanhuntError as error:
            return error.message.rstrip(".")
        return next((why for file in files for why in self._faults(file)), "")

    def _faults(self, file: str) -> Iterator[str]:
        """Of one file. Reading stops where the caller does."""
        self.opened += 1
        try:
            container = open_path(file)
        except NothingToCheck:
            return
        except NanhuntError as error:
            yield error.message.rstrip(".")
            return
        unreadable = (*container.missing, *_refused(container))
        yield from (error.message.rstrip(".") for error in unreadable)
        try:
            for outcome in registry.find("values").judge(container, {}, self._run):
                yield from _said(outcome)
        except NothingToCheck:
            return


def _said(outcome: Outcome) -> Iterator[str]:
    if isinstance(outcome, Failed):
        yield f"{printable(outcome.label)} cannot be read: {outcome.error}"
        return
    place = printable(f"{outcome.file}:{outcome.tensor}" if outcome.tensor else outcome.file)
    errors = (finding for finding in outcome.findings if finding.severity is Severity.ERROR)
    yield from (f"{place}: {finding.message}" for finding in errors)


def _refused(container: Container) -> list[NanhuntError]:
    return [error for error in container.refused.values() if not isinstance(error, NotNumbers)]
