"""The proof of a repair: the step repeated from its inputs and random state, with the repair in place."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..incident import Proof
from ..numbers import checkable, finite
from ..observer import Observation, culprits
from ..second_look import Repetition, repeat
from ..tape import Entry, Slot, Tape
from .rewrite import Proposal, Rewrite, Value, by_order, run

Exact = Callable[[], Repetition | None]
Roots = Sequence[tuple[Slot, torch.Tensor | None]]


@dataclass(frozen=True)
class Trial:
    """One repetition with repairs in place."""

    look: Repetition
    proof: Proof
    guilty: tuple[Observation, ...]
    """What makes NaN or infinity now."""

    @property
    def clean(self) -> bool:
        """Whether the loss and every gradient are finite."""
        return math.isfinite(self.proof.loss) and self.proof.finite_gradients == self.proof.gradients


def attempt(
    tape: Tape,
    roots: Roots,
    before: Repetition | None,
    proposals: Sequence[Proposal],
    exact: Exact = lambda: None,
    given: Mapping[Slot, torch.Tensor] | None = None,
) -> Trial:
    """Repeat the step with the proposals in place of what they mend.

    ``before``: the step as it was, to compare with; ``exact``: the same in float64, asked for where values differ;
    ``given``: inputs to be others than they were.

    Raises CannotRepeat where a proposal fails, as on a shape or dtype that the next call does not take.
    """
    rewrites = by_order(proposals)
    instead = {
        order: functools.partial(_instead, found, found[0].call.entry) for order, found in rewrites.items()
    }
    look = repeat(
        tape, roots, backward=before is None or differentiable(before, roots), instead=instead, given=given
    )
    gradients = [copy.grad for copy in look.inputs.values() if copy.grad is not None and checkable(copy.grad)]
    bad = [grad for grad in gradients if not finite(grad)]
    losses = [look.values[slot] for slot, _ in roots]
    bad += [loss for loss in losses if checkable(loss) and not finite(loss)]
    seen = [item for item in map(look.observer.of, bad) if item is not None]
    compared = [
        _compare(before, look, exact, one.rewrites[-1].call.entry) for one in proposals if before is not None
    ]
    proof = Proof(
        loss=float(sum(loss.detach().double().sum() for loss in losses)),
        gradients=len(gradients),
        finite_gradients=sum(map(finite, gradients)),
        compared=sum(one[0] for one in compared),
        changed=sum(one[1] for one in compared),
        largest_change=max((one[2] for one in compared), default=0.0),
    )
    return Trial(look, proof, tuple(culprits(seen)))


def differentiable(look: Repetition, roots: Roots) -> bool:
    """Whether backward can be run from the roots."""
    held = [(look.values[slot], seed) for slot, seed in roots]
    return all(root.requires_grad and (root.numel() == 1 or seed is not None) for root, seed in held)


def _instead(
    rewrites: list[Rewrite], entry: Entry, value: Value, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return run(rewrites, value, entry.func, args, kwargs)


def _compare(before: Repetition, after: Repetition, exact: Exact, entry: Entry) -> tuple[int, int, float]:
    """Of a call's result: values that were finite before, how many are others now, and the largest relative change.

    A value that has come nearer to what the same step gives in float64 is not counted: an overflow had shaped it.
    """
    slot = entry.out
    old = before.values.get(slot) if isinstance(slot, Slot) else None
    new = after.values.get(slot) if isinstance(slot, Slot) else None
    if old is None or new is None or old.shape != new.shape or not checkable(old):
        return 0, 0, 0.0
    sound = old.isfinite()
    was, now = _wide(old)[sound], _wide(new)[sound]
    change = (was - now).abs() / was.abs().clamp(min=1.0)
    changed = ~(change <= rounding(old.dtype))
    look = exact() if bool(changed.any()) else None
    truth = look.values.get(slot) if look is not None and isinstance(slot, Slot) else None
    if truth is not None and truth.shape == old.shape:
        true = _wide(truth)[sound]
        changed &= ~((now - true).abs() <= (was - true).abs())
    largest = float(change[changed].max()) if bool(changed.any()) else 0.0
    return len(was), int(changed.sum()), largest


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to(torch.complex128 if tensor.dtype.is_complex else torch.float64)


def rounding(dtype: torch.dtype) -> float:
    """How far two sound ways to compute a value may lie apart, relative to max(1, |value|).

    At least 0.7 %: the logarithm of the smallest subnormal number is off by up to ln 2 in 103 (float32).
    """
    return max(16 * torch.finfo(dtype).eps, 0.007)
