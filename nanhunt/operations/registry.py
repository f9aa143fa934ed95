"""The operations that --op takes: one line each."""

from __future__ import annotations

from nanhunt.operations.attention import ATTENTION
from nanhunt.operations.bce import BCE
from nanhunt.operations.operation import Operation
from nanhunt.options import one_of

OPERATIONS: dict[str, Operation] = {operation.name: operation for operation in (BCE, ATTENTION)}


def find(name: str) -> Operation:
    """The operation of that name. NanhuntError, with the nearest one, for any other."""
    one_of("--op", name, tuple(OPERATIONS))
    return OPERATIONS[name]
