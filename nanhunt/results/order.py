"""Total orders, so that reports are equal however they were added up."""

from __future__ import annotations

import functools
import re
from typing import Any


@functools.lru_cache(maxsize=1 << 16)
def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts step-2 before step-10."""
    parts = re.split("0*([0-9]+)", text)
    # Of two numbers the longer one is larger, which needs no int() and its limit of 4,300 digits.
    return tuple((1, 0, part) if index % 2 == 0 else (0, len(part), part) for index, part in enumerate(parts))


def file_key(file: str) -> tuple[Any, ...]:
    """Sort key of a path: step-2 before step-10, step-02 apart from step-2."""
    return (natural_key(file), file)
