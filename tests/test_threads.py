"""Work in several threads: results in order, errors in their turn, nothing begun that nobody wants."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from nanhunt import threads
from nanhunt.threads import in_order


@pytest.fixture(params=[1, 2, 5], autouse=True)
def number_of_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every promise holds for any number of them."""
    monkeypatch.setattr(threads, "THREADS", request.param)
    monkeypatch.setattr(threads, "AHEAD", 3 * request.param)


def slow_first(item: int) -> int:
    """Early items take longest, so that they finish last."""
    time.sleep(0.002 * max(0, 5 - item))
    return item * item


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    assert list(in_order(slow_first, range(count))) == [item * item for item in range(count)]


def test_what_work_raises_comes_after_the_results_before_it() -> None:
    def work(item: int) -> int:
        if item == 7:
            raise ValueError("the seventh")
        return slow_first(item)

    results = in_order(work, range(100))
    assert [next(results) for _ in range(7)] == [item * item for item in range(7)]
    with pytest.raises(ValueError, match="the seventh"):
        next(results)


def test_what_the_items_raise_comes_after_the_results_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the file has gone")

    got = []
    with pytest.raises(OSError, match="the file has gone"):
        got.extend(in_order(slow_first, items()))
    results = in_order(slow_first, items())
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]


def test_only_a_few_items_are_taken_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    results = in_order(lambda item: item, items())
    for _ in range(10):
        next(results)
    assert len(taken) <= 10 + threads.AHEAD + 2


def test_nothing_goes_on_when_the_caller_stops() -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        return item

    before = threading.active_count()
    results = in_order(work, range(1000))
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert len(begun) <= threads.AHEAD + 1


def test_an_interrupt_is_not_kept_waiting() -> None:
    def work(item: int) -> int:
        if threading.current_thread() is threading.main_thread() and item > 3:
            raise KeyboardInterrupt
        time.sleep(0.001)
        return item

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        list(in_order(work, range(1000)))
    assert threading.active_count() == before
