"""Pieces that lie in several places and make one tensor, as rows: only what is asked for is put together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from nanhunt.dtypes.convert import Array
from nanhunt.load.arrays import CHUNK, unpacked
from nanhunt.load.source import Location
from nanhunt.load.spool import Portable
from nanhunt.load.tensor import BITS, Tensor


@dataclass(frozen=True)
class Shard:
    """A box of a tensor."""

    offsets: tuple[int, ...]
    """Of its first value, a number a dimension."""
    values: Array
    """Of the box's own shape."""


Pieces = Callable[[], Sequence[Shard]]


def sharded(place: Location, name: str, dtype: str, shape: tuple[int, ...], pieces: Pieces) -> Tensor:
    """One tensor of several pieces; who needs all of it as one array gets it through a temporary file."""

    def copy(stream: IO[bytes]) -> None:
        rows = ShardRows(tensor.shards, shape, -1)
        for _, block in rows.blocks(max(1, CHUNK // max(1, rows.classes * stored.itemsize))):
            stream.write(block.data)

    stored = np.dtype(BITS.get(dtype, dtype))
    tensor = Tensor(place.file, name, dtype, shape, lambda: unpacked(place, copy, stored, shape), pieces)
    return tensor


class ShardRows:
    """Rows of a tensor in pieces, as ``Rows`` gives those of an array. The boxes cover it and do not overlap."""

    def __init__(self, shards: Sequence[Shard], shape: tuple[int, ...], class_axis: int) -> None:
        self._given = shards, shape, class_axis
        order = [*range(len(shape))]
        order.append(order.pop(class_axis))  # classes last, as in the moved view of Rows
        sizes = [shape[axis] for axis in order]
        self.classes = sizes[-1]
        self.leading = tuple(sizes[:-1])
        self.count = math.prod(self.leading)
        self._boxes = [
            ([shard.offsets[axis] for axis in order], shard.values.transpose(order)) for shard in shards
        ]
        self._dtype = shards[0].values.dtype

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes map the values."""
        shards, shape, class_axis = self._given
        portable = tuple((shard.offsets, Portable(shard.values)) for shard in shards)
        return _rows_of, (portable, shape, class_axis)

    def blocks(self, rows_per_block: int) -> Iterator[tuple[int, Array]]:
        """(first row number, block of shape (rows, classes)) over all rows, in order."""
        step = max(1, rows_per_block)
        for first in range(0, self.count, step):
            yield first, self.range(first, min(first + step, self.count))

    def take(self, numbers: Array) -> Array:
        """Copies of the rows with those numbers, shape (len(numbers), classes)."""
        taken = np.empty((len(numbers), self.classes), self._dtype)
        for place, number in enumerate(numbers):
            taken[place] = self.range(int(number), int(number) + 1)[0]
        return taken

    def range(self, first: int, last: int) -> Array:
        """Rows first..last-1, shape (last - first, classes), copied out of the pieces."""
        found = np.empty((last - first, self.classes), self._dtype)
        for low, high in _boxes_of(first, last, self.leading):
            rows = math.prod(end - start for start, end in zip(low, high, strict=True))
            start = int(np.ravel_multi_index(low, self.leading)) - first if low else 0
            shape = [end - begin for begin, end in zip(low, high, strict=True)]
            self._fill(found[start : start + rows].reshape(*shape, self.classes), low)
        return found

    def _fill(self, into: Array, low: tuple[int, ...]) -> None:
        """Copies what every piece has of the box at ``low`` of the leading dimensions."""
        for offsets, values in self._boxes:
            here: list[slice] = []
            there: list[slice] = []
            for begin, size, offset, length in zip((*low, 0), into.shape, offsets, values.shape, strict=True):
                start, end = max(begin, offset), min(begin + size, offset + length)
                here.append(slice(start - begin, max(start, end) - begin))
                there.append(slice(start - offset, max(start, end) - offset))
            into[tuple(here)] = values[tuple(there)]


def _rows_of(
    portable: Sequence[tuple[tuple[int, ...], Portable]], shape: tuple[int, ...], class_axis: int
) -> ShardRows:
    return ShardRows([Shard(offsets, values.array) for offsets, values in portable], shape, class_axis)


def _boxes_of(
    first: int, last: int, shape: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Flat numbers first..last-1 over ``shape`` as boxes (low, high), in order."""
    if not shape:
        yield (), ()
        return
    inner = math.prod(shape[1:])
    while first < last:
        index, skipped = divmod(first, inner)
        whole = (last - first) // inner if skipped == 0 else 0
        if whole:
            yield (index, *(0,) * (len(shape) - 1)), (index + whole, *shape[1:])
            first += whole * inner
        else:
            end = min(last, (index + 1) * inner)
            for low, high in _boxes_of(skipped, skipped + end - first, shape[1:]):
                yield (index, *low), (index + 1, *high)
            first = end
