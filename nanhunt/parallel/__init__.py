"""Work on several cores, results in order."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = min(4, os.cpu_count() or 1)

forks = False
"""Whether ``in_order`` may fork: only a program that is nanhunt's own knows that no thread of its holds a lock."""

_THREADED = ("torch", "fsspec")
"""Packages that run threads of their own, which a fork would not have; and ours have time to work beside them."""


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """``work`` of every item, in their order whatever finishes first.

    Items should cost little to make: they are made one after the other, and by every process where there are
    several, which must all come to the same ones. What ``items`` or ``work`` raises is raised here in its turn;
    then, and when the caller stops early, nothing more is begun. In processes ``work`` must not change anything,
    and its results must be picklable.
    """
    workers = WORKERS if workers is None else workers
    items = iter(items)
    first = list(itertools.islice(items, 2))
    items = itertools.chain(first, items)
    if len(first) < 2 or workers < 2:
        yield from map(work, items)
    elif forks and not any(name in sys.modules for name in _THREADED):
        from nanhunt.parallel.processes import in_processes

        yield from in_processes(work, items, workers)
    else:
        from nanhunt.parallel.threads import in_threads

        yield from in_threads(work, items, workers)


class Fastest(Executor):
    """The fastest way on this machine: forked processes for programs of nanhunt's own, threads elsewhere."""

    def __init__(self, workers: int | None = None) -> None:
        """``workers``: how many, this one included; None: as many as there are cores, four at most."""
        self._workers = workers

    def submit(self, fn: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs) -> Future[Result]:
        """One call is done at once, where it is asked for."""
        future: Future[Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(
        self,
        fn: Callable[..., Result],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Result]:
        """As ``in_order``; results come as they are known, and waiting for them is bounded by nothing."""
        return in_order(lambda items: fn(*items), zip(*iterables, strict=False), self._workers)
