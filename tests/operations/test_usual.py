"""Rules that many operations share: of which units each holds, whatever the operation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nanhunt.operations.operation import Facts, faultless
from nanhunt.operations.rule import Rule
from nanhunt.operations.usual import vanished, wrong_rules


def says(*_: Any) -> str:
    return "a number"


USELESS, IMPRECISE = wrong_rules("bce", "NH998", "NH999", "Why.", "Fix.", says)
VANISHED = vanished("bce", "NH997", "F.call", says)


def holds(rule: Rule[Any, Any, Any], naive: str = "", fused: str = "") -> bool:
    """Of one unit with which those forms do what the words say."""
    yes = np.ones(1, bool)
    by = {
        name: replace(faultless(1), **dict.fromkeys(told.split(), yes))
        for name, told in (("naive", naive), ("fused", fused))
    }
    assert rule.holds is not None
    return bool(rule.holds(Facts(by))[0])


@pytest.mark.parametrize(
    ("naive", "fused", "expected"),
    [
        ("", "", []),
        ("wrong", "", ["NH999"]),
        ("wrong", "wrong", []),  # so is PyTorch's own: the dtype is at fault, not the way of writing
        ("wrong", "bad_value", []),
        ("wrong useless", "", ["NH998"]),
        ("wrong useless", "wrong", ["NH998"]),
        ("wrong useless", "bad_gradient", []),
        ("silent", "", []),  # of PyTorch's own gradient it is said
        ("", "silent", ["NH997"]),
    ],
)
def test_what_is_wrong_is_told_of_the_form_that_does_it(naive: str, fused: str, expected: list[str]) -> None:
    assert [rule.code for rule in (VANISHED, USELESS, IMPRECISE) if holds(rule, naive, fused)] == expected
