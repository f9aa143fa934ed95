"""The proof of a repair: the step repeated from its inputs and random state, with the repair in place."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..incident import Proof
from ..numbers import checkable, finite
from ..observer import Observation, culprits
from ..second_look import Repetition, repeat
from ..tape import Entry, Slot, Tape
from .comparison import Comparison, Exact, compare
from .rewrite import Proposal, Rewrite, Value, by_order, run

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
    gradients = _gradients(look)
    bad = [grad for grad in gradients if not finite(grad)]
    losses = [look.values[slot] for slot, _ in roots]
    bad += [loss for loss in losses if checkable(loss) and not finite(loss)]
    seen = [item for item in map(look.observer.of, bad) if item is not None]
    compared = compare(before, look, proposals, exact) if before is not None else Comparison()
    return Trial(look, proof_of(look, roots, compared), tuple(culprits(seen)))


def _gradients(look: Repetition) -> list[torch.Tensor]:
    return [grad for grad in look.gradients() if checkable(grad)]


def proof_of(look: Repetition, roots: Roots, compared: Comparison = Comparison()) -> Proof:  # noqa: B008 - frozen
    """What has come out of a repetition."""
    gradients = _gradients(look)
    return Proof(
        loss=float(sum(look.values[slot].detach().double().sum() for slot, _ in roots)),
        gradients=len(gradients),
        finite_gradients=sum(map(finite, gradients)),
        compared=compared.values,
        changed=compared.changed,
        largest_change=compared.largest,
    )


def differentiable(look: Repetition, roots: Roots) -> bool:
    """Whether backward can be run from the roots."""
    held = [(look.values[slot], seed) for slot, seed in roots]
    return all(root.requires_grad and (root.numel() == 1 or seed is not None) for root, seed in held)


def _instead(
    rewrites: list[Rewrite], entry: Entry, value: Value, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return run(rewrites, value, entry.func, args, kwargs)
