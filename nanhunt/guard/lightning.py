"""For Lightning, as the callback that saves."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from nanhunt.guard.memory import faults

_log = logging.getLogger("nanhunt.guard")


class LightningGuard(ModelCheckpoint):
    """A ModelCheckpoint that saves nothing while anything in the model or its optimizers is not finite.

    Since nothing is saved, nothing is deleted in its favour either: the last good checkpoints stay. It takes what
    ModelCheckpoint takes, and stands in its place.
    """

    def _save_topk_checkpoint(self, trainer: Any, monitor_candidates: dict[str, Any]) -> None:
        if not self._is_bad(trainer):
            super()._save_topk_checkpoint(trainer, monitor_candidates)

    def _save_last_checkpoint(self, trainer: Any, monitor_candidates: dict[str, Any]) -> None:
        if not self._is_bad(trainer):
            super()._save_last_checkpoint(trainer, monitor_candidates)

    def _is_bad(self, trainer: Any) -> bool:
        found = faults(trainer.lightning_module, *trainer.optimizers)
        if found:
            _log.warning("step %s: checkpoint not saved: %s", trainer.global_step, "; ".join(found))
        return bool(found)
