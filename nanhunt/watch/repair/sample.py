"""Where the numbers given are the cause: the step repeated with sound ones in the place of a sample or a weight."""

from __future__ import annotations

import torch

from ..incident import Proof
from ..numbers import checkable, finite
from ..second_look import CannotRepeat
from .mend import Failing
from .proof import attempt

MAX_NAMED = 5


def without_bad_samples(step: Failing, indices: list[int] | None = None) -> str:
    """What comes of the step with each bad row of its inputs replaced by a sound one; "" where that says nothing.

    ``indices``: numbers in the data set of the batch's rows, where the sampler has told them.
    """
    if step.look is None:
        return ""
    inputs = {slot: copy for slot, copy in step.look.inputs.items() if not copy.requires_grad}
    bad = {
        slot: copy.detach()
        for slot, copy in inputs.items()
        if checkable(copy) and not finite(copy) and copy.dim()
    }
    rows = {slot: _bad_rows(copy) for slot, copy in bad.items()}
    if not bad or any(len(found) == len(bad[slot]) for slot, found in rows.items()):
        return ""
    replaced = {slot: _replaced(copy, rows[slot]) for slot, copy in bad.items()}
    try:
        proof = attempt(step.tape, step.roots, None, (), given=replaced).proof
    except CannotRepeat:
        return ""
    if not proof.sound:
        return ""
    named = sorted({row for found in rows.values() for row in found})
    return (
        f"with {_rows(named)} of the batch replaced by a sound one the repeated step is finite "
        f"({_sound(proof)}): the data is the cause{_known(named, indices)}"
    )


def without_bad_weights(step: Failing) -> str:
    """What comes of the step with each bad value of its parameters replaced by 0; "" where that says nothing."""
    if step.look is None:
        return ""
    blamed = {id(item.result): item for item in step.guilty if item.where is None and not item.node}
    bad = {slot: copy.detach() for slot, copy in step.look.inputs.items() if id(copy) in blamed}
    if not bad or len(blamed) < len(step.guilty):
        return ""
    try:
        replaced = {slot: copy.nan_to_num(0.0, 0.0, 0.0) for slot, copy in bad.items()}
        proof = attempt(step.tape, step.roots, None, (), given=replaced).proof
    except CannotRepeat:
        return ""
    if not proof.sound:
        return ""
    count = sum(int((~copy.isfinite()).sum()) for copy in bad.values())
    values = "1 bad value" if count == 1 else f"{count:,} bad values"
    return (
        f"with 0 for {values} of {len(bad)} parameter{'s' if len(bad) > 1 else ''} the repeated step is finite "
        f"({_sound(proof)}): the numbers it began with are the cause"
    )


def _sound(proof: Proof) -> str:
    return f"loss {proof.loss:.6g}, {proof.finite_gradients} of {proof.gradients} gradients"


def _bad_rows(tensor: torch.Tensor) -> list[int]:
    return (
        [int(row) for row in (~tensor.isfinite()).flatten(1).any(1).nonzero()]
        if tensor.dim() > 1
        else [int(row) for row in (~tensor.isfinite()).nonzero()]
    )


def _replaced(tensor: torch.Tensor, rows: list[int]) -> torch.Tensor:
    sound = next(row for row in range(len(tensor)) if row not in set(rows))
    copy = tensor.clone()
    copy[rows] = tensor[sound]
    return copy


def _rows(rows: list[int]) -> str:
    many = f", ... ({len(rows):,} in all)" if len(rows) > MAX_NAMED else ""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:MAX_NAMED]))}{many}"


def _known(rows: list[int], indices: list[int] | None) -> str:
    if not indices or rows[-1] >= len(indices):
        return ""
    named = ", ".join(str(indices[row]) for row in rows[:MAX_NAMED])
    return f"; sample{'s' if len(rows) > 1 else ''} {named} of the data set"
