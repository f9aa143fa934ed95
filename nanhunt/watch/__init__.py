"""Hunts the NaN while a training script runs: ``nanhunt run``, and ``nanhunt.watch()`` inside a program.

``nanhunt.watch`` is this package and the function at once: importing the package sets that name on ``nanhunt``,
so the package has to be callable itself.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .callbacks import Watch
    from .incident import Incident

__all__ = ["Incident", "NanFoundError", "Watch", "watch"]


def watch(**settings: Any) -> Watch:
    """Watch the block it is used on: ``with nanhunt.watch(): train()``.

    Args:
        settings: ``keep_going=False`` (report and run on, rather than raise), ``max_reports=5``,
            ``every_op=False``, ``capture_dir="nanhunt-capture"``, ``tensorboard=None`` (a folder),
            ``report=print to stderr`` (called with each Incident).

    Raises:
        NanFoundError: from the failing ``backward()`` or ``step()``, unless ``keep_going``; it holds the incident.

    """
    from .callbacks import Watch

    return Watch(**settings)


def __getattr__(name: str) -> Any:
    """Import nothing heavy before it is asked for."""
    if name in ("Watch", "NanFoundError"):
        from . import callbacks

        return getattr(callbacks, name)
    if name == "Incident":
        from .incident import Incident

        return Incident
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Callable(ModuleType):
    def __call__(self, **settings: Any) -> Watch:
        return watch(**settings)


sys.modules[__name__].__class__ = _Callable
