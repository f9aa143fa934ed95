"""Tallies of ranges add up to the tally of the whole, in any grouping."""

from __future__ import annotations

import itertools
from dataclasses import fields
from functools import reduce
from operator import add

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nanhunt.operations.cross_entropy.facts import ROW_FIELDS, RowFacts, nothing_wrong
from nanhunt.operations.cross_entropy.tally import causes_of, tally_facts
from nanhunt.operations.rules import RULES
from nanhunt.operations.tally import REMEDY_ROWS, Tally, bin_of, strip

JUDGED = [rule for rule in RULES.values() if rule.operation == "cross-entropy"]


def random_facts(rows: int, seed: int) -> RowFacts:
    """Facts that hold at random."""
    rng = np.random.default_rng(seed)
    facts = nothing_wrong(rows)
    for name in ROW_FIELDS:
        setattr(facts, name, rng.random(rows) < 0.2)
    for behaviour in facts.by.values():
        for item in fields(behaviour):
            setattr(behaviour, item.name, rng.random(rows) < 0.2)
    return facts


def part(facts: RowFacts, first: int, last: int, rows: int) -> Tally:
    """The tally of rows first..last-1 of ``rows``."""
    some = nothing_wrong(last - first)
    for name in ROW_FIELDS:
        setattr(some, name, getattr(facts, name)[first:last])
    for name, behaviour in some.by.items():
        for item in fields(behaviour):
            setattr(behaviour, item.name, getattr(facts.by[name], item.name)[first:last])
    return tally_facts(some, np.arange(first, last), rows, JUDGED)


def same(one: Tally, two: Tally) -> bool:
    """Equal in everything."""
    arrays = set(one.behaviour) == set(two.behaviour) and all(
        np.array_equal(one.behaviour[name], two.behaviour[name]) for name in one.behaviour
    )
    rest = all(getattr(one, f.name) == getattr(two, f.name) for f in fields(Tally) if f.name != "behaviour")
    return arrays and rest


@given(st.integers(1, 60), st.integers(0, 1000), st.lists(st.integers(0, 60), max_size=5))
def test_parts_in_any_grouping_and_order_are_the_whole(rows: int, seed: int, cuts: list[int]) -> None:
    facts = random_facts(rows, seed)
    whole = part(facts, 0, rows, rows)
    edges = sorted({0, rows, *(cut for cut in cuts if cut < rows)})
    parts = [part(facts, first, last, rows) for first, last in itertools.pairwise(edges)]
    assert same(reduce(add, parts), whole)
    assert same(reduce(add, reversed(parts)), whole)
    assert same(parts[0] + reduce(add, parts[1:], Tally()), whole)
    assert same(Tally() + whole, whole)


def test_counts_and_causes_by_hand() -> None:
    facts = nothing_wrong(4)
    facts.nan_logit[1] = facts.low_headroom[1] = facts.low_headroom[3] = True
    tally = tally_facts(facts, np.arange(4), 4, JUDGED)
    assert tally.counts == {"NH001": 1, "NH401": 2}
    assert tally.rows == {"NH001": (1,), "NH401": (1, 3)}
    assert tally.affected == 2
    assert causes_of(facts, JUDGED).tolist() == ["", "nan-logits", "", "low-headroom"]
    assert [bin_.causes for bin_ in strip(tally, 4, [rule.code for rule in JUDGED])] == [
        (),
        (("NH001", 1),),
        (),
        (("NH401", 1),),
    ]


def test_the_first_rows_are_remembered_in_order() -> None:
    facts = nothing_wrong(3 * REMEDY_ROWS)
    facts.exp_inf[:] = True
    whole = part(facts, 2000, 3000, 3000) + part(facts, 0, 2000, 3000)
    assert whole.rows["NH101"] == tuple(range(REMEDY_ROWS))
    assert whole.counts["NH101"] == 3 * REMEDY_ROWS


@given(st.integers(1, 5000))
def test_bins_of_the_strip_cover_every_row_once(rows: int) -> None:
    bins = strip(Tally(), rows, ())
    assert bins[0].first == 0
    assert bins[-1].last == rows - 1
    assert all(one.last + 1 == two.first for one, two in itertools.pairwise(bins))
    numbers = np.arange(rows)
    where = bin_of(numbers, rows)
    assert all(bins[int(b)].first <= n <= bins[int(b)].last for n, b in zip(numbers, where, strict=True))
