"""Work done where it is asked for, one item after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")


class Serial(Executor):
    """One core, and the calls that only one is good for; executors of this package map better than that."""

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
        """Results in the order of the items, as they are known: waiting for them is bounded by nothing.

        Items should cost little to make: they are made one after the other. What they or ``fn`` raise is raised
        here in its turn; then, and when the caller stops early, nothing more is begun.
        """
        return self.in_order(lambda items: fn(*items), zip(*iterables, strict=False))

    def in_order(self, work: Callable[[Any], Result], items: Iterator[Any]) -> Iterator[Result]:
        """``map`` of one argument; the only thing that executors do differently."""
        return map(work, items)
