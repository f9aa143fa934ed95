"""A loss that the script has read and that was not finite: a fault only if training goes on without it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .names import operation
from .site import Site
from .tape import Module, Tape, slots_in

ASKING = ("isnan", "isinf", "isfinite")
RECENT = 4
"""Calls between the question and the answer that is read: isfinite, all, logical_not, item."""


@dataclass(frozen=True)
class ReadLoss:
    """It is no incident yet: a metric may be infinite, a term may be left out of the loss."""

    loss: torch.Tensor
    models: frozenset[int]
    """ids of the outermost modules that had run by then: called again with no backward between, it was skipped."""
    site: Site | None


def models_run(tape: Tape) -> frozenset[int]:
    """ids of the outermost modules of the calls on the tape."""
    return frozenset(id(_outermost(entry.module)) for entry in tape.entries if entry.module)


def tested(tape: Tape, answer: torch.Tensor) -> list[torch.Tensor]:
    """The single number whose isnan, isinf or isfinite was asked, if that is what made the answer."""
    slot = tape.find(answer)
    for entry in reversed(tape.last(RECENT)):
        if entry.out is slot and slot is not None:
            asked = next(slots_in(entry.args), None)
            if operation(entry.func) in ASKING:
                tensor = asked.tensor if asked else None
                return [tensor] if tensor is not None and tensor.numel() == 1 else []
            slot = asked
    return []


def _outermost(module: Module) -> torch.nn.Module:
    running, outer = module
    return running if outer is None else _outermost(outer)
