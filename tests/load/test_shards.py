"""Pieces of one tensor: whatever is asked of them is what the whole array gives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nanhunt.load.rows import Rows
from nanhunt.load.shards import FarBox, Shard, ShardRows

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


def far(shard: Shard, fetched: list[int]) -> Shard:
    """The same box as one whose values are fetched; how many is noted."""
    values = np.asarray(shard.values)

    def ranges(start: int, stop: int) -> np.ndarray:
        fetched.append(stop - start)
        return values.reshape(-1)[start:stop]

    return Shard(shard.offsets, FarBox(ranges, values.shape, values.dtype))


@pytest.mark.parametrize("is_far", [False, True])
@pytest.mark.parametrize("shape", CUTS)
def test_rows_of_pieces_are_those_of_the_whole(shape: tuple[int, ...], is_far: bool) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    shards = [far(each, []) if is_far else each for each in cut(array, CUTS[shape])]
    for axis in range(len(shape)):
        whole, pieces = Rows(array, axis), ShardRows(shards, shape, axis)
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


def test_any_values_of_pieces_and_no_others_are_fetched() -> None:
    array = np.arange(1000, dtype=np.float32)
    fetched: list[int] = []
    pieces = ShardRows([far(each, fetched) for each in cut(array, [(0, 300, 1000)])], (1000,), -1)
    np.testing.assert_array_equal(pieces.values(290, 320), array[290:320])
    assert fetched == [10, 20]


def test_an_empty_piece_gives_nothing() -> None:
    shards = [far(each, []) for each in cut(np.zeros((0, 3), np.float32), [(0, 0), (0, 3)])]
    assert ShardRows(shards, (0, 3), -1).range(0, 0).shape == (0, 3)
