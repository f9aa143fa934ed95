"""Rows of arrays of any shape, against a plain moveaxis and reshape."""

from __future__ import annotations

import numpy as np
import pytest

from nanhunt.load.rows import Rows

SHAPES = [
    ((7,), -1), ((7,), 0), ((5, 7), -1), ((5, 7), 0), ((5, 7), 1), ((2, 7, 3), 1), ((2, 3, 7), -1), ((7, 2, 3), 0),
    ((2, 7, 3, 4), 1), ((2, 3, 4, 7), 3), ((2, 3, 4, 7), -2), ((0, 7), -1), ((3, 0, 7), -1), ((3, 7, 0), 1),
    ((1, 1, 7), -1),
]  # fmt: skip


def plain(array: np.ndarray, axis: int) -> np.ndarray:
    """All rows at once, as (rows, classes)."""
    moved = np.moveaxis(array, axis, -1)
    return moved.reshape(int(np.prod(moved.shape[:-1])), moved.shape[-1])


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    """An array in which every value is another."""
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("rows_per_block", [0, 1, 2, 3, 5, 1000])
def test_blocks_are_all_rows_in_order(shape: tuple[int, ...], axis: int, rows_per_block: int) -> None:
    array = numbered(shape)
    rows, expected = Rows(array, axis), plain(array, axis)
    assert (rows.count, rows.classes) == expected.shape
    next_row = 0
    for first, block in rows.blocks(rows_per_block):
        assert first == next_row
        assert np.array_equal(block, expected[first : first + len(block)])
        next_row += len(block)
    assert next_row == len(expected)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_take_and_range_are_rows_by_number(shape: tuple[int, ...], axis: int) -> None:
    array = numbered(shape)
    rows, expected = Rows(array, axis), plain(array, axis)
    numbers = np.arange(len(expected))[::-2]
    assert np.array_equal(rows.take(numbers), expected[numbers])
    assert np.array_equal(rows.range(0, len(expected)), expected)
    assert np.array_equal(rows.range(1, len(expected)), expected[1:])


def test_a_block_of_a_contiguous_tensor_is_not_a_copy() -> None:
    array = numbered((4, 3, 5))
    assert np.shares_memory(Rows(array, -1).range(2, 9), array)
    assert all(np.shares_memory(block, array) for _, block in Rows(array, -1).blocks(3))


def test_blocks_of_many_leading_dimensions_stay_small() -> None:
    assert max(len(block) for _, block in Rows(numbered((2, 6, 5, 3)), -1).blocks(4)) <= 4


def test_leading_dimensions_are_those_without_the_class_axis() -> None:
    assert Rows(numbered((2, 7, 3)), 1).leading == (2, 3)
    assert Rows(numbered((7,)), -1).leading == ()
    assert Rows(numbered((7,)), -1).count == 1
