"""Blocks of logits in the layout that the user has: (rows, classes), or (N, classes, d) where classes are not last.

PyTorch has another kernel for each, and in the second a vector of neighbours along d takes another way than the few
that are left over at its end: near a cliff the same row may be finite in one place and not in another. So a block
keeps whole vectors of neighbours together, and those left over at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nanhunt.dtypes.convert import Array
from nanhunt.load.tensor import Tensor

NEIGHBOURS = 64
"""A multiple of every vector's width, in elements: AVX-512 holds 32 half-precision numbers."""


class Layout:
    """A tensor (*before, classes, *after) seen as (outer, classes, inner); rows are numbered outer first."""

    def __init__(self, tensor: Tensor, axis: int) -> None:
        axis %= max(1, len(tensor.shape))
        self._tensor = tensor
        self._before = tensor.shape[:axis]
        self._outer = math.prod(tensor.shape[:axis])
        self._inner = math.prod(tensor.shape[axis + 1 :])
        self._classes = tensor.shape[axis]

    def ranges(self, values: int) -> Iterator[tuple[int, int]]:
        """(first row, the row after the last) of blocks of about ``values`` values over all rows, in order."""
        size = self._classes * self._inner
        if size <= values:
            step = max(1, values // max(1, size))
            for first in range(0, self._outer, step):
                last = min(first + step, self._outer)
                yield first * self._inner, last * self._inner
            return
        step = max(1, values // self._classes // NEIGHBOURS) * NEIGHBOURS
        for item in range(self._outer):
            for start in range(0, max(NEIGHBOURS, self._inner - NEIGHBOURS + 1), step):
                yield item * self._inner + start, item * self._inner + self._end(start, step)

    def around(self, row: int) -> tuple[int, Array]:
        """(its first row, the smallest block (1, classes, d) that treats that row as the whole tensor does)."""
        item, at = divmod(row, self._inner)
        start = at // NEIGHBOURS * NEIGHBOURS
        if start and self._inner - start < NEIGHBOURS:
            start -= NEIGHBOURS
        first = item * self._inner
        return first + start, self.block(first + start, first + self._end(start, NEIGHBOURS))

    def block(self, first: int, last: int) -> Array:
        """One of those ranges as (n, classes, d)."""
        item, start = divmod(first, max(1, self._inner))
        if last - first < self._inner:
            return self._items(item, item + 1)[:, :, start : start + last - first]
        return self._items(item, last // max(1, self._inner))

    def _end(self, start: int, step: int) -> int:
        """Where neighbours from ``start`` on end; fewer than a vector's worth of others go with them."""
        return start + step if self._inner - start - step >= NEIGHBOURS else self._inner

    def _items(self, first: int, last: int) -> Array:
        if (
            self._tensor.ranges or self._tensor.shards
        ):  # fetched or put together as they are asked for, never all of them
            size = self._classes * self._inner
            return self._tensor.flat(first * size, last * size).reshape(-1, self._classes, self._inner)
        data = self._tensor.data
        if data.flags.c_contiguous:
            return data.reshape(self._outer, self._classes, self._inner)[first:last]
        items = [
            data[np.unravel_index(item, self._before)] if self._before else data
            for item in range(first, last)
        ]
        return np.stack([item.reshape(self._classes, self._inner) for item in items])
