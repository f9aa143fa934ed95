"""For Lightning, as the callback that saves."""

from __future__ import annotations

import logging
from typing import Any, Literal

from lightning.pytorch.callbacks import ModelCheckpoint

from nanhunt.guard.folder import mark
from nanhunt.guard.memory import faults

_log = logging.getLogger("nanhunt.guard")


class LightningGuard(ModelCheckpoint):
    """A ModelCheckpoint that looks at the model and its optimizers before it saves them.

    ``on_bad``: "refuse" saves nothing while anything is not finite, so that nothing is deleted in its favour either;
    "mark" saves it with a file that says why it is bad, and stops deleting from there on. ``last.ckpt`` stays the
    last good one in both. For the rest it takes what ModelCheckpoint takes, and stands in its place.
    """

    def __init__(self, *args: Any, on_bad: Literal["refuse", "mark"] = "refuse", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_bad = on_bad
        self._looked_at = -1
        """The step."""
        self._why = ""
        self._keeps_all = False

    def _save_topk_checkpoint(self, trainer: Any, monitor_candidates: dict[str, Any]) -> None:
        if not self._is_bad(trainer) or self.on_bad == "mark":
            super()._save_topk_checkpoint(trainer, monitor_candidates)

    def _save_last_checkpoint(self, trainer: Any, monitor_candidates: dict[str, Any]) -> None:
        if not self._is_bad(trainer):
            super()._save_last_checkpoint(trainer, monitor_candidates)

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if self._why and self._looked_at == trainer.global_step and trainer.is_global_zero:
            mark(filepath, self._why)

    def _remove_checkpoint(self, trainer: Any, filepath: str) -> None:
        if not self._keeps_all:
            super()._remove_checkpoint(trainer, filepath)

    def _is_bad(self, trainer: Any) -> bool:
        """Whether anything is, looked up once a step on all ranks."""
        if self._looked_at != trainer.global_step:
            self._looked_at = trainer.global_step
            self._why = "; ".join(faults(trainer.lightning_module, *trainer.optimizers))
            self._keeps_all |= bool(self._why) and self.on_bad == "mark"
            if self._why and trainer.is_global_zero:
                done = "not saved" if self.on_bad == "refuse" else "marked as bad"
                _log.warning("step %s: checkpoint %s: %s", trainer.global_step, done, self._why)
        return bool(self._why)
