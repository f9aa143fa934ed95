"""A path becomes named tensors: one file per format, chosen by content and not by suffix.

Importing this imports no package (PEP 562), since the command line finds its options here; what is asked of it
imports NumPy, and torch comes in when a checkpoint of its own is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanhunt.load.container import Container, NothingToCheck, NotNumbers, RefusedTensor
    from nanhunt.load.folder import find
    from nanhunt.load.opening import open_path
    from nanhunt.load.reference import tensor_at
    from nanhunt.load.roles import Role
    from nanhunt.load.tensor import Tensor

__all__ = [
    "Container",
    "NotNumbers",
    "NothingToCheck",
    "RefusedTensor",
    "Role",
    "Tensor",
    "find",
    "open_path",
    "tensor_at",
]

_HOME = {
    "Container": "container",
    "NotNumbers": "container",
    "NothingToCheck": "container",
    "RefusedTensor": "container",
    "Role": "roles",
    "Tensor": "tensor",
    "find": "folder",
    "open_path": "opening",
    "tensor_at": "reference",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
