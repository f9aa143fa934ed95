"""What a repair leaves as it was: finite values and gradients of the failing step beside those of the mended one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..numbers import checkable
from ..second_look import Repetition
from ..tape import Entry, Slot, slots_in
from .rewrite import Proposal

Exact = Callable[[], Repetition | None]
"""The same step in float64, worked out when it is first asked for; None where its calls do not take that."""


@dataclass(frozen=True)
class Comparison:
    """Values that were finite before, and what has become of them."""

    values: int = 0
    changed: int = 0
    """Beyond rounding, and not towards what the step gives in float64: an overflow had shaped those."""
    largest: float = 0.0
    """Largest change of one of them, relative to the scale of its tensor."""

    def __add__(self, other: Comparison) -> Comparison:
        """Both together."""
        largest = max(self.largest, other.largest)
        return Comparison(self.values + other.values, self.changed + other.changed, largest)


def compare(before: Repetition, after: Repetition, proposals: Sequence[Proposal], exact: Exact) -> Comparison:
    """Every floating-point value of the step's forward, and every gradient of its inputs.

    Left out is what a proposal moves: between its first rewrite and its last there are other quantities now.
    """
    total = Comparison()
    moved = _moved(before.entries, proposals)
    for entry in before.entries:
        for slot in slots_in(entry.out):
            if slot not in moved:
                truth = _held(exact, slot)
                floor = _floor(before, entry, slot)
                total += _compare(before.values.get(slot), after.values.get(slot), truth, floor)
    return total + _gradients(before, after, exact)


def _gradients(before: Repetition, after: Repetition, exact: Exact) -> Comparison:
    total = Comparison()
    known = [copy.grad for copy in before.inputs.values() if copy.grad is not None]
    largest = max(map(_scale, known), default=0.0)
    for slot, copy in before.inputs.items():
        new = after.inputs.get(slot)
        if copy.grad is not None and new is not None:
            floor = max(_scale(copy.grad), largest / 100)
            total += _compare(copy.grad, new.grad, _differentiated(exact, slot), floor)
    return total


def _moved(entries: Sequence[Entry], proposals: Sequence[Proposal]) -> set[Slot]:
    """Slots that hold another quantity: made by a rewrite that is not the last of its kind, or from that."""
    early: set[int] = set()
    for one in proposals:
        early |= {rewrite.call.entry.order for rewrite in one.rewrites} - {*one.ends}
    last = {order for one in proposals for order in one.ends} - early
    moved: set[Slot] = set()
    for entry in entries:
        if entry.order in early or (entry.order not in last and not moved.isdisjoint(entry.given)):
            moved.update(slots_in(entry.out))
    return moved


def _held(exact: Exact, slot: Slot) -> Callable[[], torch.Tensor | None]:
    def value() -> torch.Tensor | None:
        look = exact()
        return look.values.get(slot) if look is not None else None

    return value


def _differentiated(exact: Exact, slot: Slot) -> Callable[[], torch.Tensor | None]:
    def value() -> torch.Tensor | None:
        look = exact()
        copy = look.inputs.get(slot) if look is not None else None
        return copy.grad if copy is not None else None

    return value


def _compare(
    old: torch.Tensor | None,
    new: torch.Tensor | None,
    truth: Callable[[], torch.Tensor | None],
    floor: float,
) -> Comparison:
    """``floor``: the smallest magnitude that a change is measured by."""
    if old is None or new is None or old.shape != new.shape or not checkable(old):
        return Comparison()
    old, new = old.detach(), new.detach()
    sound = old.isfinite()
    count = int(sound.sum())
    other = sound & (old != new)
    if not bool(other.any()):
        return Comparison(count)
    was, now = _wide(old[other]), _wide(new[other])
    change = (was - now).abs() / was.abs().clamp(min=floor or 1.0)
    changed = ~(change <= rounding(old.dtype))
    true = truth() if bool(changed.any()) else None
    if true is not None and true.shape == old.shape:
        exactly = _wide(true.detach()[other])
        changed &= ~((now - exactly).abs() <= (was - exactly).abs())
    largest = float(change[changed].nan_to_num(torch.inf).max()) if bool(changed.any()) else 0.0
    return Comparison(count, int(changed.sum()), largest)


def _floor(before: Repetition, entry: Entry, slot: Slot) -> float:
    """At most 1; less where all that the call was given and made is smaller."""
    tensors = _tensors(before, entry, slot)
    return min(1.0, max(map(_scale, tensors), default=1.0))


def _tensors(before: Repetition, entry: Entry, slot: Slot) -> Iterator[torch.Tensor]:
    for one in (slot, *entry.given):
        tensor = before.values.get(one)
        if tensor is not None and checkable(tensor):
            yield tensor


def _scale(tensor: torch.Tensor) -> float:
    """Of the finite values."""
    if not checkable(tensor):
        return 0.0
    return float(torch.where(tensor.isfinite(), tensor, 0).detach().abs().max())


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.complex128 if tensor.dtype.is_complex else torch.float64)


def rounding(dtype: torch.dtype) -> float:
    """How far two sound ways to compute a value may lie apart, relative to the scale of its tensor.

    At least 0.7 %: the logarithm of the smallest subnormal number is off by up to ln 2 in 103 (float32).
    """
    return max(16 * torch.finfo(dtype).eps, 0.007)
