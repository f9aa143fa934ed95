"""What may be said of a call that is run again: that it goes bad, or that what it was given was bad already."""

from __future__ import annotations

from typing import Any

from nanhunt.operations.rule import Rule
from nanhunt.results.finding import Severity

GOES_BAD, GIVEN_BAD = "NH951", "NH952"
RULES: tuple[Rule[Any, Any, Any], ...] = (
    Rule(
        GOES_BAD, "call-goes-bad", Severity.ERROR,
        "A PyTorch operation makes NaN or infinity of numbers that do not explain it.",
        "Some of them lie where it is not defined, or its result leaves the format.",
        "Guard what the operation is given, before it and not after; nanhunt run has proposed how.",
        operation="call",
    ),
    Rule(
        GIVEN_BAD, "call-input-not-finite", Severity.ERROR,
        "What the operation was given is NaN or infinite, and its result is too.",
        "It hands on what was there.",
        "Find what produced it (nanhunt run names the operation).",
        operation="call", input_at_fault=True,
    ),
)  # fmt: skip
