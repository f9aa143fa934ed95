"""Work in threads: NumPy's reductions and torch's operations run outside the interpreter's lock."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar

from nanhunt.parallel.serial import Serial

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 3
"""Items begun and not handed over yet, per thread: those that are copies stay in bounded memory."""


class Threads(Serial):
    """Threads for one ``map`` each, this one among them."""

    def __init__(self, workers: int) -> None:
        """``workers``: how many threads, this one included."""
        self._workers = workers

    def in_order(self, work: Callable[[Any], Result], items: Iterator[Any]) -> Iterator[Result]:
        """Threads take the items as they are free."""
        return _Line(work, items, self._workers).results()


class _Line(Generic[Item, Result]):
    """Items that wait for a thread, and outcomes that wait for their turn.

    The thread that wants the results works too. Beside a pool it would only wake up for every one of them, and
    take the interpreter's lock from those who work.
    """

    def __init__(self, work: Callable[[Item], Result], items: Iterator[Item], count: int) -> None:
        self._count = count
        self._work = work
        self._items = items
        self._begun = self._handed_over = 0
        self._closed = False
        """No item is left, or none is wanted."""
        self._outcomes: dict[int, Callable[[], Result]] = {}
        """By number; each returns its result, or raises."""
        self._changed = threading.Condition()
        """Guards all of the above."""

    def results(self) -> Iterator[Result]:
        """All of them, in the order of the items."""
        helpers: list[threading.Thread] = []
        try:
            with contextlib.suppress(
                RuntimeError
            ):  # no more threads are allowed: those there are do everything
                for _ in range(self._count - 1):
                    helper = threading.Thread(target=self._help, daemon=True)
                    helper.start()
                    helpers.append(helper)
            while (outcome := self._next_outcome()) is not None:
                yield outcome()
        finally:
            self._close()
            for helper in helpers:
                helper.join()

    def _next_outcome(self) -> Callable[[], Result] | None:
        """The outcome whose turn it is, after working on items until it is there; None after the last."""
        while True:
            with self._changed:
                while self._handed_over not in self._outcomes and not self._may_begin():
                    if self._closed and self._handed_over == self._begun:
                        return None
                    self._changed.wait()
                if self._handed_over in self._outcomes:
                    outcome = self._outcomes.pop(self._handed_over)
                    self._handed_over += 1
                    self._changed.notify_all()
                    return outcome
                begun = self._begin()
            if begun is not None:
                self._finish(*begun)

    def _help(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._may_begin():
                    self._changed.wait()
                begun = None if self._closed else self._begin()
            if begun is None:
                return
            self._finish(*begun)

    def _may_begin(self) -> bool:
        return not self._closed and self._begun - self._handed_over < AHEAD * self._count

    def _begin(self) -> tuple[int, Item] | None:
        """The next item and its number; None when there is none."""
        number = self._begun
        try:
            item = next(self._items)
        except StopIteration:
            self._close()
            return None
        except Exception as error:
            self._begun += 1
            self._outcomes[number] = partial(_raise, error)
            self._close()
            return None
        self._begun += 1
        return number, item

    def _finish(self, number: int, item: Item) -> None:
        outcome: Callable[[], Result]
        try:
            outcome = partial(_the_same, self._work(item))
        except Exception as error:
            outcome = partial(_raise, error)
        with self._changed:
            self._outcomes[number] = outcome
            self._changed.notify_all()

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _the_same(result: Result) -> Result:
    return result


def _raise(error: Exception) -> NoReturn:
    raise error
