"""Hunts the NaN while a training script runs: ``nanhunt run``, and ``nanhunt.watch()`` inside a program.

``nanhunt.watch`` is this package and the function at once: importing the package sets that name on ``nanhunt``,
so the package has to be callable itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .callbacks import Watch
    from .incident import Incident

__all__ = ["Incident", "NanFoundError", "Watch", "watch"]


def watch(
    *,
    keep_going: bool = False,
    max_reports: int = 5,
    every_op: bool = False,
    capture_dir: str = "nanhunt-capture",
    tensorboard: str | None = None,
    report: Callable[[Incident], None] | None = None,
) -> Watch:
    """Watch the block it is used on: ``with nanhunt.watch(): train()``.

    Args:
        keep_going: report and run on, rather than raise.
        max_reports: incidents to report before it only counts, with ``keep_going``.
        every_op: look at the result of every operation as it is made, which is slower.
        capture_dir: the folder that the inputs of the bad step are written to.
        tensorboard: a folder for the numbers of every step; None: none are written.
        report: called with each Incident; by default it is printed to stderr.

    Raises:
        NanFoundError: from the failing ``backward()`` or ``step()``, unless ``keep_going``; it holds the incident.

    """
    from .callbacks import Watch

    return Watch(
        keep_going=keep_going, max_reports=max_reports, every_op=every_op, capture_dir=capture_dir,
        tensorboard=tensorboard, report=report,
    )  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import nothing heavy before it is asked for."""
    if name in ("Watch", "NanFoundError"):
        from . import callbacks

        return getattr(callbacks, name)
    if name == "Incident":
        from .incident import Incident

        return Incident
    if name == "__signature__":  # what help() and editors show for the package as a function
        import inspect

        return inspect.signature(watch)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Callable(ModuleType):
    __call__ = staticmethod(watch)


sys.modules[__name__].__class__ = _Callable
