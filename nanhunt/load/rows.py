"""A tensor of any number of dimensions as numbered rows of classes, without copying it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nanhunt.dtypes.convert import Array

if TYPE_CHECKING:
    from nanhunt.load.spool import Portable


class RowSource(Protocol):
    """Rows of classes, wherever they lie: of an array (``Rows``) or of pieces (``ShardRows``)."""

    @property
    def classes(self) -> int:
        """How many there are."""

    @property
    def leading(self) -> tuple[int, ...]:
        """Shape of the other dimensions, over which rows are numbered."""

    @property
    def count(self) -> int:
        """Of rows."""

    def blocks(self, rows_per_block: int) -> Iterator[tuple[int, Array]]:
        """(first row number, block of shape (rows, classes)) over all rows, in order."""

    def take(self, numbers: Array) -> Array:
        """Copies of the rows with those numbers, shape (len(numbers), classes)."""

    def range(self, first: int, last: int) -> Array:
        """Rows first..last-1, shape (last - first, classes)."""


class Rows:
    """Rows of an array: flat numbers over the dimensions other than the class axis, in order.

    ``array`` may be memory-mapped; only the blocks asked for are read. A 1-D array is one row.
    """

    def __init__(self, array: Array, class_axis: int) -> None:
        self._view = np.moveaxis(array, class_axis, -1)
        self.classes = self._view.shape[-1]
        self.leading = self._view.shape[:-1]
        self.count = math.prod(self.leading)

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes map the values."""
        from nanhunt.load.spool import Portable  # only what goes to other processes

        return _rows_of, (Portable(self._view),)

    def blocks(self, rows_per_block: int) -> Iterator[tuple[int, Array]]:
        """(first row number, block of shape (rows, classes)) over all rows, in order."""
        yield from _blocks(self._view, 0, max(1, rows_per_block))

    def take(self, numbers: Array) -> Array:
        """Copies of the rows with those numbers, shape (len(numbers), classes)."""
        if not self.leading:
            return self._view[None, :][numbers]
        return self._view[np.unravel_index(numbers, self.leading)]

    def range(self, first: int, last: int) -> Array:
        """Rows first..last-1, shape (last - first, classes); a view where the layout allows it."""
        if self._view.flags.c_contiguous:
            return self._view.reshape(self.count, self.classes)[first:last]
        return self.take(np.arange(first, last))


@dataclass(frozen=True)
class RangeRows:
    """Rows of a tensor far away, classes last, as ``Rows`` gives those of an array; only those wanted are fetched."""

    _values: Callable[[int, int], Array]
    """``_values(start, stop)``: flat, in C order."""
    _shape: tuple[int, ...]

    @property
    def classes(self) -> int:
        """How many there are."""
        return self._shape[-1]

    @property
    def leading(self) -> tuple[int, ...]:
        """Shape of the other dimensions, over which rows are numbered."""
        return self._shape[:-1]

    @property
    def count(self) -> int:
        """Of rows."""
        return math.prod(self.leading)

    def blocks(self, rows_per_block: int) -> Iterator[tuple[int, Array]]:
        """(first row number, block of shape (rows, classes)) over all rows, in order."""
        step = max(1, rows_per_block)
        for first in range(0, self.count, step):
            yield first, self.range(first, min(first + step, self.count))

    def take(self, numbers: Array) -> Array:
        """Copies of the rows with those numbers, shape (len(numbers), classes)."""
        rows = [self.range(number, number + 1) for number in numbers.tolist()]
        return np.concatenate(rows) if rows else self.range(0, 0)

    def range(self, first: int, last: int) -> Array:
        """Rows first..last-1, shape (last - first, classes)."""
        return self._values(first * self.classes, last * self.classes).reshape(last - first, self.classes)


def _rows_of(values: Portable) -> Rows:
    return Rows(values.array, -1)


def _blocks(view: Array, first: int, limit: int) -> Iterator[tuple[int, Array]]:
    """Slices the leading dimensions until a slice has at most ``limit`` rows, so reshape copies little."""
    if view.ndim == 1:
        yield first, view[None, :]
        return
    inner = math.prod(view.shape[1:-1])
    if view.ndim > 2 and inner > limit:
        for index in range(view.shape[0]):
            yield from _blocks(view[index], first + index * inner, limit)
        return
    step = max(1, limit // max(1, inner))
    for start in range(0, view.shape[0], step):
        part = view[start : start + step]
        yield first + start * inner, part.reshape(-1, view.shape[-1])


def evenly(count: int, most: int) -> Array:
    """At most ``most`` of the numbers 0 to count - 1, evenly spread, with the first and the last: int64, ascending."""
    taken = min(count, most)
    return np.arange(taken) * (count - 1) // max(1, taken - 1)
