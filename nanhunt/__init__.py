"""Find the rows, the format and the cause when a loss, an operation or a weight turns NaN, with a proven fix.

``check`` and ``compare`` take paths, NumPy arrays or torch tensors and return a ``Report``; ``diff`` takes two of them
and returns a ``Difference``. Nothing heavy is imported until one of them is called (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Difference",
    "NanhuntError",
    "Report",
    "__version__",
    "check",
    "compare",
    "diff",
    "guard",
    "watch",
]

if TYPE_CHECKING:
    from nanhunt import guard
    from nanhunt.api import check, compare, diff
    from nanhunt.errors import NanhuntError
    from nanhunt.results.difference import Difference
    from nanhunt.results.report import Report
    from nanhunt.watch import watch

_HOME = {
    "check": "nanhunt.api",
    "compare": "nanhunt.api",
    "diff": "nanhunt.api",
    "Difference": "nanhunt.results.difference",
    "NanhuntError": "nanhunt.errors",
    "Report": "nanhunt.results.report",
    "load_ipython_extension": "nanhunt.notebook",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in ("guard", "watch"):  # packages; this one can be called
        return importlib.import_module(f"nanhunt.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'nanhunt' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "guard", "watch"})
