"""JSON as it is written: what is short on one line, nothing lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanhunt.results.codec import WIDTH, written

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, st.sampled_from([None, 1, 2]))
def test_it_is_json_of_the_same(value: Any, indent: int | None) -> None:
    assert json.loads(written(value, indent)) == value


@given(JSON)
def test_it_is_one_line_or_indented_as_usual(value: Any) -> None:
    text = written(value)
    again = json.dumps(value, ensure_ascii=False)
    if len(again) <= WIDTH:
        assert text == again
    assert text.replace("\n", "").replace(" ", "") == again.replace("\n", "").replace(" ", "")


def test_bins_and_lists_of_numbers_stand_on_one_line() -> None:
    bins = [{"first": at, "last": at + 9, "causes": [["NH101", 3]][:at]} for at in range(0, 40, 10)]
    assert written({"strip": bins, "rows": list(range(60))}) == (
        '{\n  "strip": [\n'
        '    {"first": 0, "last": 9, "causes": []},\n'
        '    {"first": 10, "last": 19, "causes": [["NH101", 3]]},\n'
        '    {"first": 20, "last": 29, "causes": [["NH101", 3]]},\n'
        '    {"first": 30, "last": 39, "causes": [["NH101", 3]]}\n'
        f'  ],\n  "rows": {list(range(60))}\n}}'
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        written([value])
