"""A sample that is spread over all rows."""

from __future__ import annotations

import itertools

import pytest

from nanhunt.load.rows import evenly


@pytest.mark.parametrize(
    ("count", "most"), [(0, 5), (1, 5), (2, 1), (5, 5), (7, 3), (1000, 7), (10**12, 4096)]
)
def test_distinct_numbers_from_the_first_to_the_last(count: int, most: int) -> None:
    numbers = evenly(count, most).tolist()
    assert len(numbers) == min(count, most)
    assert numbers == sorted(set(numbers))
    assert not numbers or (numbers[0] == 0 and numbers[-1] == (count - 1 if most > 1 else 0))
    steps = {after - before for before, after in itertools.pairwise(numbers)}
    assert max(steps, default=0) - min(steps, default=0) <= 1
