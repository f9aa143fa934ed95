"""``--first``: the first bad step of a run, and no more of it read than that takes.

A weight that is NaN stays NaN, since every update starts from it: a series of checkpoints is good up to one of them
and bad from the next one on, and halving it finds which. Activations and gradients are made anew in every step, so
those are read in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from nanhunt.errors import NanhuntError
from nanhunt.load import find
from nanhunt.load.checkpoints import Checkpoint, checkpoints
from nanhunt.load.folder import Found
from nanhunt.load.wording import printable
from nanhunt.results.finding import Severity
from nanhunt.results.report import NotLookedAt, Report
from nanhunt.scan.options import Options

Judge = Callable[[Found], Report]
"""All files of one step, and what lies beside them."""
_STAYS = {"model", "optimizer", "counter"}
"""Phases of what stays NaN."""


def first_bad(paths: Sequence[str], options: Options, judge: Judge) -> Iterator[Report]:
    """A report for each step that is read, the last one with what was assumed.

    Raises NanhuntError for anything but one folder of steps.
    """
    if len(paths) != 1:
        raise NanhuntError(
            f"--first takes one folder, and {len(paths)} paths were given.", "Run it once for each."
        )
    series = checkpoints(paths[0], options.layout)
    if not series:
        message = f"{printable(paths[0])} holds nothing that is called after a step or an epoch."
        raise NanhuntError(message, "Say how it is called: --layout 'dumps/{step}/{name}.pt'")
    reading = _Reading(series, options.exclude, judge)
    said = reading.halved() if reading.is_of_weights else reading.in_order()
    newest = max(reading.reports)
    for number, report in reading.reports.items():
        # Every trainer's log holds those before it.
        yield report if number == newest else replace(report, logged=())
    yield Report(assumed=(said,))


@dataclass
class _Reading:
    """A series, and what is known of it so far."""

    series: Sequence[Checkpoint]
    exclude: Sequence[str]
    judge: Judge
    reports: dict[int, Report] = field(default_factory=dict)
    """By number in the series."""

    def is_bad(self, number: int) -> bool:
        """Whether anything in that step is an error; read when it is asked for."""
        if number not in self.reports:
            self.reports[number] = self._read(self.series[number].paths)
        return any(finding.severity is Severity.ERROR for finding in self.reports[number].findings)

    def _read(self, paths: Sequence[str]) -> Report:
        try:
            found = find(paths, self.exclude)
        except NanhuntError:  # a folder that was made, and nothing written into it
            return Report(not_looked_at=tuple(NotLookedAt(path, "no tensors") for path in paths))
        return self.judge(found)

    @property
    def is_of_weights(self) -> bool:
        """Whether the newest step holds weights or optimizer state, and nothing that is made anew in every step."""
        last = len(self.series) - 1
        newest = self._readable(range(last, -1, -1))
        tensors = self.reports[last if newest is None else newest].tensors
        phases = {str(tensor.coordinates.get("phase", "")) for tensor in tensors}
        made_anew = {tensor.role for tensor in tensors} - {"values"}
        return bool(phases) and phases <= {*_STAYS, ""} and phases != {""} and not made_anew

    def halved(self) -> str:
        """Looks at both ends, then halves what is between a good and a bad one; says what was assumed.

        One that cannot be read in full and shows nothing bad says nothing: its neighbour is asked in its place.
        """
        every = range(len(self.series))
        oldest, newest = self._readable(every), self._readable(every[::-1])
        if oldest is None or newest is None:
            return f"{self._opened()}: none of them could be read in full, and none shows anything bad"
        if self.is_bad(oldest) or not self.is_bad(newest):
            return self._ends(oldest, newest)
        good, bad = oldest, newest
        while bad - good > 1:
            middle = (good + bad) // 2
            halfway = self._readable(sorted(range(good + 1, bad), key=lambda number: abs(number - middle)))
            if halfway is None:
                break
            good, bad = (good, halfway) if self.is_bad(halfway) else (halfway, bad)
        return (
            f"{self._opened()}, assuming that a weight that is NaN stays NaN; the ends agree: "
            f"{self._name(oldest)} is clean, {self._name(newest)} is not"
        )

    def _readable(self, numbers: Iterable[int]) -> int | None:
        """The first of them that is bad, or was read in full; None where there is none."""
        return next(
            (each for each in numbers if self.is_bad(each) or self._is_whole(self.reports[each])), None
        )

    @staticmethod
    def _is_whole(report: Report) -> bool:
        return bool(report.tensors) and not report.errors

    def _ends(self, oldest: int, newest: int) -> str:
        """What is said where there is nothing to halve."""
        first, last = self.is_bad(oldest), self.is_bad(newest)
        if first and last:
            return f"{self._opened()}: the oldest one, {self._name(oldest)}, is bad already"
        if first:
            return (
                f"{self._opened()}: {self._name(oldest)} is bad and {self._name(newest)} is not, so bad weights did "
                "not stay bad here, and those between may be either: without --first all are read"
            )
        return (
            f"{self._opened()}: both ends are clean, {self._name(oldest)} and {self._name(newest)}, and so is what "
            "lies between, assuming that a weight that is NaN stays NaN"
        )

    def in_order(self) -> str:
        """Reads one after the other, up to the first that is bad."""
        at = next((number for number in range(len(self.series)) if self.is_bad(number)), None)
        if at is not None:  # what was read to see what it holds is no part of the answer
            self.reports = {number: report for number, report in self.reports.items() if number <= at}
        read = len(self.series) if at is None else at + 1
        return f"read {read:,} of {len(self.series):,} steps in order: activations and gradients are made anew in each"

    def _opened(self) -> str:
        return f"opened {len(self.reports):,} of {len(self.series):,} checkpoints"

    def _name(self, number: int) -> str:
        return printable(self.series[number].paths[0])
