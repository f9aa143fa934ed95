"""Hunts the NaN while a training script runs: ``nanhunt run``, and ``nanhunt.watch()`` inside a program.

``nanhunt.watch`` is this package and the function at once: importing the package sets that name on ``nanhunt``,
so the package has to be callable itself.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec

from nanhunt.options import declared, explained, one_of

from .options import Keywords

if TYPE_CHECKING:
    from .callbacks import Watch
    from .incident import Incident

__all__ = ["Incident", "NanFoundError", "Watch", "watch"]
P = ParamSpec("P")


def _with_keywords(
    keywords: Callable[P, Keywords],
) -> Callable[[Callable[[Keywords], Watch]], Callable[P, Watch]]:
    """Turns ``f(keywords)`` into ``f(*, keep_going=False, ...)``, whose help() says what they mean."""

    def decorate(function: Callable[[Keywords], Watch]) -> Callable[P, Watch]:
        @functools.wraps(function)
        def made(*args: P.args, **kwargs: P.kwargs) -> Watch:
            for name in kwargs:
                one_of("The keyword", name, tuple(declared(keywords)))
            return function(keywords(*args, **kwargs))

        parameters = inspect.signature(keywords).parameters.values()
        made.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            list(parameters), return_annotation="Watch"
        )
        made.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": "Watch"}
        made.__doc__ = f"{function.__doc__}\n    Keywords:\n{explained(keywords)}"
        return made

    return decorate


@_with_keywords(Keywords)
def watch(keywords: Keywords) -> Watch:
    """Watches the block it is used on: ``with nanhunt.watch(): train()``.

    Raises NanFoundError from the failing ``backward()`` or ``step()``, unless ``keep_going``. It holds the Incident,
    whose ``patch.diff``, where an edit was proven, is what ``nanhunt run --patch FILE`` writes for git apply.
    Raises NanhuntError for an unknown keyword, and for a value that it does not take.
    """
    from .callbacks import Watch

    return Watch(keywords)


def __getattr__(name: str) -> Any:
    """Import nothing heavy before it is asked for."""
    if name in ("Watch", "NanFoundError"):
        from . import callbacks

        return getattr(callbacks, name)
    if name == "Incident":
        from .incident import Incident

        return Incident
    if name == "__signature__":  # what help() and editors show for the package as a function
        return inspect.signature(watch)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Callable(ModuleType):
    __call__ = staticmethod(watch)


sys.modules[__name__].__class__ = _Callable
