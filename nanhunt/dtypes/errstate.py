"""What NumPy is not to warn of in a function, whichever thread runs it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
Result = TypeVar("Result")
Kind = Literal["all", "divide", "over", "under", "invalid"]


def ignoring(*kinds: Kind) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """``np.errstate`` as a decorator, a new one for each call.

    Before NumPy 2 all calls share one, which keeps what it is to restore in itself: a second thread that begins
    meanwhile changes what the first one goes back to.
    """
    ignored: dict[str, Any] = dict.fromkeys(kinds, "ignore")

    def decorate(function: Callable[P, Result]) -> Callable[P, Result]:
        @functools.wraps(function)
        def quiet(*args: P.args, **kwargs: P.kwargs) -> Result:
            with np.errstate(**ignored):
                return function(*args, **kwargs)

        return quiet

    return decorate
