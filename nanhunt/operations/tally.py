"""What is counted over a range of rows. Ranges add up to the same, bit for bit, in whatever order they come in."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nanhunt.operations.exact import Exact
from nanhunt.operations.values.health import Counts
from nanhunt.results.tensor import RowBin

K = TypeVar("K")
V = TypeVar("V", int, float, Exact, npt.NDArray[np.int64])
REMEDY_ROWS = 1000
"""How many failing rows of a rule are remembered, to run remedies on."""
BINS = 240
NOTHING = Exact()


@dataclass(frozen=True)
class Tally:
    """Additive results over some rows of one tensor."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """Rows by rule code."""
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The first REMEDY_ROWS rows by rule code, ascending."""
    affected: int = 0
    behaviour: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """By form, rows for each field of what the operation observes of a form."""
    sums: Mapping[str, Exact] = field(default_factory=dict)
    """Values added up, by form and "truth": a block in float64, blocks without rounding."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Largest absolute row loss error where both are finite; "cast" for the cast alone."""
    health: Counts = field(default_factory=Counts)
    loss_low: Exact = NOTHING
    """At most, and ..."""
    loss_high: Exact = NOTHING
    """... at least the sum of the row losses of ``fused`` that are finite, here of their magnitudes."""
    strip_max: Mapping[int, float] = field(default_factory=dict)
    """Largest logit by bin."""
    strip_causes: Mapping[tuple[int, str], int] = field(default_factory=dict)
    """Rows by (bin, cause)."""

    def __add__(self, other: Tally) -> Tally:
        """The tally over both ranges."""
        return Tally(
            counts=_added(self.counts, other.counts),
            rows=_first(self.rows, other.rows),
            affected=self.affected + other.affected,
            behaviour=_added(self.behaviour, other.behaviour),
            sums=_added(self.sums, other.sums),
            errors=_largest(self.errors, other.errors),
            health=self.health + other.health,
            loss_low=self.loss_low + other.loss_low,
            loss_high=self.loss_high + other.loss_high,
            strip_max=_largest(self.strip_max, other.strip_max),
            strip_causes=_added(self.strip_causes, other.strip_causes),
        )


def tally_rules(
    holds: Sequence[tuple[str, npt.NDArray[np.bool_]]], numbers: npt.NDArray[np.intp], rows: int
) -> Tally:
    """Counts by code and by cause for the rows with those flat ``numbers``, of ``rows`` in all.

    ``holds``: (code, bool (len(numbers),)) in order of causes: a row's cause is the first rule that holds for it.
    """
    counts: dict[str, int] = {}
    first: dict[str, tuple[int, ...]] = {}
    cause = np.full(len(numbers), -1)
    for position, (code, held) in reversed(list(enumerate(holds))):
        if held.any():
            counts[code] = int(np.count_nonzero(held))
            first[code] = tuple(numbers[np.flatnonzero(held)[:REMEDY_ROWS]].tolist())
            cause[held] = position
    hit = cause >= 0
    times = np.bincount(bin_of(numbers[hit], rows) * len(holds) + cause[hit])
    causes = {
        (key // len(holds), holds[key % len(holds)][0]): int(times[key])
        for key in np.flatnonzero(times).tolist()
    }
    return Tally(counts, first, int(np.count_nonzero(hit)), strip_causes=causes)


def bin_of(numbers: npt.NDArray[np.intp], rows: int) -> npt.NDArray[np.intp]:
    """The bins of the strip that rows fall in."""
    return numbers * min(rows, BINS) // max(rows, 1)


def strip(tally: Tally, rows: int, codes: Sequence[str]) -> tuple[RowBin, ...]:
    """The strip over all rows, from a tally over all of them; ``codes`` in order of causes."""
    bins = min(rows, BINS)
    edges = [-(-index * rows // bins) for index in range(bins + 1)] if bins else []
    return tuple(
        RowBin(
            edges[index],
            edges[index + 1] - 1,
            tally.strip_max.get(index),
            tuple(
                (code, tally.strip_causes[index, code])
                for code in codes
                if (index, code) in tally.strip_causes
            ),
        )
        for index in range(bins)
    )


def _added(one: Mapping[K, V], two: Mapping[K, V]) -> dict[K, V]:
    return _joined(one, two, operator.add)


def _largest(one: Mapping[K, float], two: Mapping[K, float]) -> dict[K, float]:
    return _joined(one, two, max)


def _joined(one: Mapping[K, V], two: Mapping[K, V], both: Callable[[V, V], V]) -> dict[K, V]:
    joined = dict(one)
    for key, value in two.items():
        joined[key] = both(joined[key], value) if key in joined else value
    return joined


def _first(
    one: Mapping[str, tuple[int, ...]], two: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    return {
        code: tuple(sorted(one.get(code, ()) + two.get(code, ()))[:REMEDY_ROWS]) for code in {**one, **two}
    }
