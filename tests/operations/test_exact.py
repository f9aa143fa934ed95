"""Exact sums: those of math.fsum, in any order and grouping."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from nanhunt.operations.exact import Exact

Floats = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20)


def total(values: list[float]) -> Exact:
    return sum(map(Exact.of, values), start=Exact())


@given(Floats, st.integers(0, 20), st.randoms())
def test_order_and_grouping_do_not_matter(values, cut, random):
    whole = total(values)
    assert total(values[:cut]) + total(values[cut:]) == whole
    random.shuffle(values)
    assert total(values) == whole


@given(st.lists(st.floats(-1e300, 1e300), max_size=20))
def test_the_sum_is_rounded_once(values):
    assert float(total(values)) == math.fsum(values)


def test_what_is_not_finite_is_as_floats_have_it():
    inf, big = math.inf, 1.7976931348623157e308
    assert float(total([inf, 1.0])) == inf
    assert float(total([-inf, 1.0])) == -inf
    assert math.isnan(float(total([inf, -inf])))
    assert math.isnan(float(total([math.nan, 1.0])))
    assert float(total([big, big])) == inf
    assert float(total([-big, -big])) == -inf
    assert float(total([big, big, -big])) == big
    assert float(total([5e-324, 5e-324])) == 1e-323
