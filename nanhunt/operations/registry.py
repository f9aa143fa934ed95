"""The operations that --op takes: one line each."""

from __future__ import annotations

from nanhunt.operations.attention import ATTENTION
from nanhunt.operations.bce import BCE
from nanhunt.operations.entropy import ENTROPY
from nanhunt.operations.operation import Operation
from nanhunt.options import one_of

OPERATIONS: dict[str, Operation] = {operation.name: operation for operation in (BCE, ATTENTION, ENTROPY)}
DEFAULT = "cross-entropy"
"""Judged without --op as well, where there are logits; by its own room, and not as one of the above."""


def find(name: str | None) -> Operation | None:
    """The operation of that name; None for cross entropy. NanhuntError, with the nearest one, for any other."""
    one_of("--op", name or DEFAULT, (DEFAULT, *OPERATIONS))
    return OPERATIONS.get(name or DEFAULT)
