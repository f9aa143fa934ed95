"""For transformers' Trainer, as a callback."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback

from nanhunt.guard.folder import mark
from nanhunt.guard.memory import faults

_log = logging.getLogger("nanhunt.guard")


class TrainerGuard(TrainerCallback):
    """Looks at the model and the optimizer before the Trainer saves them.

    ``on_bad``: "refuse" saves nothing while anything is not finite, so that rotation (``save_total_limit``) has no
    reason to delete a good checkpoint; "mark" saves it with a file that says why it is bad, and stops rotation from
    there on. ``save_strategy="best"`` decides too late to be refused: such a checkpoint is marked.
    """

    def __init__(self, on_bad: Literal["refuse", "mark"] = "refuse") -> None:
        self.on_bad = on_bad
        self._why = ""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before a checkpoint by steps."""
        self._before_saving(args, state, control, **kwargs)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before a checkpoint by epochs."""
        self._before_saving(args, state, control, **kwargs)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before a checkpoint of the best model."""
        if args.save_strategy == "best":
            self._look(args, state, **kwargs)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The checkpoint is there."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self._why and state.is_world_process_zero and folder.is_dir():
            mark(folder, self._why)

    def _before_saving(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if control.should_save and self._look(args, state, **kwargs) and self.on_bad == "refuse":
            control.should_save = False

    def _look(self, args: Any, state: Any, model: Any = None, optimizer: Any = None, **_: Any) -> bool:
        """Whether anything is bad; then nothing that was saved before is deleted any more."""
        found = faults(model, *filter(None, [optimizer]))
        self._why = "; ".join(found)
        if found:
            args.save_total_limit = None
            done = "not saved" if self.on_bad == "refuse" else "marked as bad"
            if state.is_world_process_zero:
                _log.warning("step %s: checkpoint %s: %s", state.global_step, done, self._why)
        return bool(found)
