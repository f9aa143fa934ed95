"""What a function is not to warn of stays so when two threads are in it at once."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from nanhunt.dtypes.errstate import ignoring


def test_a_thread_that_begins_meanwhile_changes_nothing() -> None:
    """The first thread is inside of two functions, the second enters and leaves the inner one from outside."""
    inside, left = threading.Event(), threading.Event()
    seen: list[dict[str, str]] = []

    @ignoring("over")
    def inner(first: bool) -> None:
        if first:
            inside.set()
            left.wait(10)

    @ignoring("invalid", "over")
    def outer() -> None:
        inner(first=True)
        seen.append(np.geterr())

    first = threading.Thread(target=outer)
    first.start()
    inside.wait(10)
    inner(first=False)
    left.set()
    first.join()
    assert (seen[0]["invalid"], seen[0]["over"]) == ("ignore", "ignore")


@ignoring("invalid")
def difference_of_infinities() -> float:
    """NaN."""
    return float(np.subtract(np.inf, np.inf))


def test_it_is_a_decorator_like_any_other() -> None:
    assert np.isnan(difference_of_infinities())
    assert (difference_of_infinities.__name__, difference_of_infinities.__doc__) == (
        "difference_of_infinities", "NaN."
    )  # fmt: skip
    with pytest.warns(RuntimeWarning):
        np.subtract(np.inf, np.inf)
