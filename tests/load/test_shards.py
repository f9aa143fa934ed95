"""Pieces of one tensor: whatever is asked of them is what the whole array gives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nanhunt.load.rows import Rows
from nanhunt.load.shards import Shard, ShardRows

CUTS = {
    (7,): [(0, 3, 7)],
    (5, 4): [(0, 2, 5), (0, 4)],
    (4, 6): [(0, 4), (0, 1, 6)],
    (3, 4, 5): [(0, 1, 3), (0, 2, 4), (0, 5)],
    (2, 3, 2, 4): [(0, 2), (0, 1, 3), (0, 2), (0, 3, 4)],
}


def cut(array: np.ndarray, cuts: list[tuple[int, ...]]) -> list[Shard]:
    pieces = itertools.product(*(itertools.pairwise(each) for each in cuts))
    return [
        Shard(
            tuple(low for low, _ in box),
            array[tuple(slice(low, high) for low, high in box)].copy(),
        )
        for box in pieces
    ]


@pytest.mark.parametrize("shape", CUTS)
def test_rows_of_pieces_are_those_of_the_whole(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    for axis in range(len(shape)):
        whole, pieces = Rows(array, axis), ShardRows(cut(array, CUTS[shape]), shape, axis)
        assert (pieces.count, pieces.classes, pieces.leading) == (whole.count, whole.classes, whole.leading)
        for first, last in itertools.combinations(range(whole.count + 1), 2):
            np.testing.assert_array_equal(pieces.range(first, last), whole.range(first, last))
        numbers = np.arange(whole.count)[::-2]
        np.testing.assert_array_equal(pieces.take(numbers), whole.take(numbers))
        for size in (1, 3, 100):
            blocks = list(pieces.blocks(size))
            assert [first for first, _ in blocks] == list(range(0, whole.count, size))
            joined = np.concatenate([block for _, block in blocks])
            np.testing.assert_array_equal(joined, whole.range(0, whole.count))
