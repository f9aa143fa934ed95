"""Work on several cores, results in order."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = min(4, os.cpu_count() or 1)

forks = False
"""Whether ``in_order`` may fork: only a program that is nanhunt's own knows that no thread of its holds a lock."""


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``work`` of every item, in their order whatever finishes first.

    Items should cost little to make: they are made one after the other, and by every process where there are
    several, which must all come to the same ones. What ``items`` or ``work`` raises is raised here in its turn;
    then, and when the caller stops early, nothing more is begun. In processes ``work`` must not change anything,
    and its results must be picklable.
    """
    items = iter(items)
    first = list(itertools.islice(items, 2))
    items = itertools.chain(first, items)
    if len(first) < 2 or WORKERS < 2:
        yield from map(work, items)
    # torch runs threads of its own, which a fork would not have; and its calls are long enough for ours.
    elif forks and "torch" not in sys.modules:
        from nanhunt.parallel.processes import in_processes

        yield from in_processes(work, items, WORKERS)
    else:
        from nanhunt.parallel.threads import in_threads

        yield from in_threads(work, items, WORKERS)
