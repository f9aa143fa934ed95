"""Work on several cores, as executors of the standard library's kind: results in order, whatever finishes first."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from nanhunt.parallel.serial import Serial

Result = TypeVar("Result")

WORKERS = min(4, os.cpu_count() or 1)

forks = False
"""Whether ``Fastest`` may fork: only a program that is nanhunt's own knows that no thread of its holds a lock."""

_THREADED = ("torch", "fsspec")
"""Packages that run threads of their own, which a fork would not have; and ours have time to work beside them."""


class Fastest(Serial):
    """The fastest way on this machine: forked processes for programs of nanhunt's own, threads elsewhere."""

    def __init__(self, workers: int | None = None) -> None:
        """``workers``: how many, this one included; None: as many as there are cores, four at most."""
        self._workers = workers

    def in_order(self, work: Callable[[Any], Result], items: Iterator[Any]) -> Iterator[Result]:
        """By the executor that suits what is loaded and how much there is to do when the first result is asked for."""
        first = list(itertools.islice(items, 2))
        executor = self._executor() if len(first) > 1 else Serial()
        yield from executor.in_order(work, itertools.chain(first, items))

    def _executor(self) -> Serial:
        workers = WORKERS if self._workers is None else self._workers
        if workers < 2:
            return Serial()
        if forks and not any(name in sys.modules for name in _THREADED):
            from nanhunt.parallel.forks import Forks

            return Forks(workers)
        from nanhunt.parallel.threads import Threads

        return Threads(workers)
