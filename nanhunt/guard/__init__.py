"""Keeps checkpoints with bad values from taking the place of good ones, while a run saves them.

    trainer = transformers.Trainer(..., callbacks=[nanhunt.guard.TrainerGuard()])
    trainer = lightning.Trainer(..., callbacks=[nanhunt.guard.LightningGuard(dirpath="out", save_top_k=2)])

and in a training loop of one's own:

    if not nanhunt.guard.faults(model, optimizer):
        torch.save(...)
    nanhunt.guard.rotate("out", keep=3)

Importing this loads nothing else; the callbacks bring in the library that they are for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanhunt.guard.folder import mark, rotate
    from nanhunt.guard.lightning import LightningGuard
    from nanhunt.guard.memory import faults
    from nanhunt.guard.trainer import TrainerGuard

__all__ = ["LightningGuard", "TrainerGuard", "faults", "mark", "rotate"]

_HOME = {
    "LightningGuard": "lightning",
    "TrainerGuard": "trainer",
    "faults": "memory",
    "mark": "folder",
    "rotate": "folder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
