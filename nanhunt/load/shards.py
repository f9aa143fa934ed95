"""Pieces that lie in several places and make one tensor, as rows: only what is asked for is put together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np

from nanhunt.dtypes.convert import Array
from nanhunt.load.arrays import CHUNK, unpacked
from nanhunt.load.source import Location
from nanhunt.load.spool import Portable
from nanhunt.load.tensor import BITS, Tensor


class Box(Protocol):
    """What is asked of the values of a box: an array here, or values far away."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the box."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values as stored."""

    def transpose(self, axes: Any, /) -> Box:
        """The same values with the dimensions in that order."""

    def __getitem__(self, index: tuple[slice, ...], /) -> Array:
        """Part of it; a slice a dimension, with start, stop and no step."""


@dataclass(frozen=True)
class Shard:
    """A box of a tensor."""

    offsets: tuple[int, ...]
    """Of its first value, a number a dimension."""
    values: Box
    """Of the box's own shape."""


@dataclass(frozen=True)
class FarBox:
    """A box far away: what is taken of it is fetched, and no more than lies between its first and its last value."""

    ranges: Callable[[int, int], Array]
    """``ranges(start, stop)``: flat, in C order."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def transpose(self, axes: Sequence[int]) -> Box:
        """See ``Box``; in another order, all of it is fetched."""
        if list(axes) == [*range(len(self.shape))]:
            return self
        return self.ranges(0, math.prod(self.shape)).reshape(self.shape).transpose(axes)

    def __getitem__(self, index: tuple[slice, ...]) -> Array:
        """See ``Box``."""
        spans = [(part.start, part.stop) for part in index]
        if any(start >= stop for start, stop in spans):
            return np.empty([max(0, stop - start) for start, stop in spans], self.dtype)
        start, axis = 0, 0  # down to the first dimension of which more than one is wanted
        while axis < len(spans) - 1 and spans[axis][1] - spans[axis][0] == 1:
            start += spans[axis][0] * math.prod(self.shape[axis + 1 :])
            axis += 1
        inner = self.shape[axis + 1 :]
        low, high = spans[axis] if spans else (0, 1)
        size = math.prod(inner)
        values = self.ranges(start + low * size, start + high * size).reshape(high - low, *inner)
        return values[(slice(None), *index[axis + 1 :])].reshape([stop - start for start, stop in spans])


def box_of(tensor: Tensor) -> Box:
    """A tensor's values as a box of a larger one."""
    if tensor.ranges is None:
        return tensor.data
    return FarBox(tensor.ranges, tensor.shape, np.dtype(BITS.get(tensor.dtype, tensor.dtype)))


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
        portable = tuple((shard.offsets, _portable(shard.values)) for shard in shards)
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
        found = self.values(first * self.classes, last * self.classes)
        return found.reshape(last - first, self.classes)

    def values(self, start: int, stop: int) -> Array:
        """Values ``start`` to ``stop`` - 1 of all rows one after the other, shape (stop - start,)."""
        found = np.empty(stop - start, self._dtype)
        filled = 0
        for low, high in _boxes_of(start, stop, (*self.leading, self.classes)):
            shape = [end - begin for begin, end in zip(low, high, strict=True)]
            self._fill(found[filled : filled + math.prod(shape)].reshape(shape), low)
            filled += math.prod(shape)
        return found

    def _fill(self, into: Array, low: tuple[int, ...]) -> None:
        """Copies what every piece has of the box at ``low``."""
        for offsets, values in self._boxes:
            here: list[slice] = []
            there: list[slice] = []
            for begin, size, offset, length in zip(low, into.shape, offsets, values.shape, strict=True):
                start, end = max(begin, offset), min(begin + size, offset + length)
                here.append(slice(start - begin, max(start, end) - begin))
                there.append(slice(start - offset, max(start, end) - offset))
            if all(part.start < part.stop for part in here):
                into[tuple(here)] = values[tuple(there)]


def _portable(values: Box) -> Portable | Box:
    return Portable(values) if isinstance(values, np.ndarray) else values


def _rows_of(
    portable: Sequence[tuple[tuple[int, ...], Portable | Box]], shape: tuple[int, ...], class_axis: int
) -> ShardRows:
    shards = [
        Shard(offsets, values.array if isinstance(values, Portable) else values)
        for offsets, values in portable
    ]
    return ShardRows(shards, shape, class_axis)


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
