"""Fixes that are handed round everywhere: run on the step as repairs are, so that the report says what they leave.

nan_to_num and a clamp after the operation change what is handed on, not what is differentiated: 0 * inf stays NaN.
clip_grad_norm_ divides by a norm that is NaN. A small eps is 0 in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..incident import Proof, Tried
from ..names import operation
from ..numbers import checkable, finite
from ..second_look import CannotRepeat, Instead, Repetition, repeat
from ..step_graph import slot_argument
from ..tape import Entry, Slot, Tape
from .proof import Roots, proof_of

EPS = 1e-8
"""What is added to divisors and under logarithms by habit."""
BOUND = 1e4
"""A number that every dtype holds."""
_HALF = (torch.float16, torch.bfloat16)
_ROOTS = frozenset({"sqrt", "norm", "vector_norm", "linalg_vector_norm", "linalg_norm", "cdist", "dist"})
_EDGES = frozenset({"log", "log2", "log10", "sqrt", "rsqrt", "reciprocal"})
Change = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""A call of a taped function, done otherwise."""


@dataclass(frozen=True)
class Habit:
    """One popular fix: what stands for which calls."""

    title: str
    calls: Sequence[Entry]
    change: Change

    @property
    def instead(self) -> Mapping[int, Instead]:
        """As ``repeat`` takes it."""
        return {entry.order: _put(self.change, entry) for entry in self.calls}


def _put(change: Change, entry: Entry) -> Instead:
    return lambda value, args, kwargs: change(entry.func, args, kwargs)


def tempting(tape: Tape, roots: Roots, before: Repetition, guilty: Sequence[Entry]) -> Iterator[Tried]:
    """Those that fit the guilty calls and do not hold, each with what is left."""
    yield from _clipped(before, roots)
    for habit in _habits(before, roots, guilty):
        try:
            look = repeat(tape, roots, backward=True, instead=habit.instead)
        except CannotRepeat:
            continue  # it fits no shape or dtype here: nobody would have written it
        outcome = left(look, proof_of(look, roots))
        if outcome:
            yield Tried(habit.title, outcome)


def _habits(before: Repetition, roots: Roots, guilty: Sequence[Entry]) -> Iterator[Habit]:
    if not guilty:
        return
    name = operation(guilty[0].func).rstrip("_")
    alike = [entry for entry in guilty if operation(entry.func).rstrip("_") == name]
    made = [before.values.get(entry.out) for entry in alike if isinstance(entry.out, Slot)]
    bad = [one for one in made if one is not None and checkable(one) and not finite(one)]
    if bad:
        yield Habit(f"nan_to_num after {name}", alike, _nan_to_num)
    if any(bool(one.isposinf().any()) for one in bad if one.is_floating_point()):
        yield Habit(f"clamp after {name}", alike, _clamped)
    if name in _ROOTS:
        yield Habit(f"eps after {name}", alike, _eps_after)
    if name in _EDGES and _given(before, alike[0]) in _HALF:
        yield Habit(f"eps in half precision under {name}", alike, _eps_before)
    if name == "log":
        products = list(_entropies(before.entries, alike))
        if products:
            yield Habit("torch.xlogy for the product", products, _xlogy)
    ends = [entry for entry in before.entries if any(entry.out is slot for slot, _ in roots)]
    if bad and ends:
        yield Habit("nan_to_num on the loss", ends, _nan_to_num)


def _given(before: Repetition, entry: Entry) -> torch.dtype | None:
    slot = slot_argument(entry, 0, "input")
    value = before.values.get(slot) if slot is not None else None
    return value.dtype if value is not None else None


def _entropies(entries: Sequence[Entry], logs: Sequence[Entry]) -> Iterator[Entry]:
    """The products p * log(p)."""
    for entry in entries:
        if operation(entry.func) == "mul" and len(entry.args) == 2:
            for log in logs:
                others = [one for one in entry.args if one is not log.out]
                if len(others) == 1 and others[0] is log.args[0]:
                    yield entry


def _nan_to_num(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return torch.nan_to_num(func(*args, **kwargs))


def _clamped(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs).clamp(max=BOUND)


def _eps_after(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs) + EPS


def _eps_before(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(args[0] + EPS, *args[1:], **kwargs)


def _xlogy(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Of p * log(p): p is the factor that is a probability."""
    p = args[0] if bool((args[0] >= 0).all()) else args[1]
    return torch.special.xlogy(p, p)


def _clipped(before: Repetition, roots: Roots) -> Iterator[Tried]:
    """clip_grad_norm_ on the gradients of the step as it was."""
    grads = [grad for grad in before.gradients() if checkable(grad)]
    if not grads or any(not finite(before.values[slot]) for slot, _ in roots):
        if grads:
            yield Tried("gradient clipping", f"the loss is still {_loss(before, roots):g}")
        return
    held = []
    for grad in grads:
        leaf = torch.zeros_like(grad).requires_grad_()
        leaf.grad = grad.clone()
        held.append(leaf)
    torch.nn.utils.clip_grad_norm_(held, 1.0)
    bad = sum(leaf.grad is not None and not finite(leaf.grad) for leaf in held)
    if bad:
        yield Tried("gradient clipping", f"{bad:,} of {len(grads):,} gradients not finite after it")


def _loss(look: Repetition, roots: Roots) -> float:
    return float(sum(look.values[slot].detach().double().sum() for slot, _ in roots))


def left(look: Repetition, proof: Proof) -> str:
    """What is still wrong when a popular fix was made; "" where it would do."""
    if proof.loss - proof.loss != 0:
        return f"the loss is still {proof.loss:g}"
    if not proof.sound:
        bad = proof.gradients - proof.finite_gradients
        return f"{bad:,} of {proof.gradients:,} gradients still not finite"
    grads = look.gradients()
    if grads and not any(bool(grad.any()) for grad in grads):
        return f"the loss is {proof.loss:g} and every gradient 0: nothing is learnt"
    return ""
