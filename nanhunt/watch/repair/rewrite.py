"""One repair as a text with holes: run on the tape's tensors, or written with the user's own expressions."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..tape import Slot
from .source import Call, Operand, Span

HOLE = re.compile(r"\{(\w+)\}")
SPELLED = {"torch": "torch", "F": "torch.nn.functional", "nn": "torch.nn"}
"""Holes for modules, which each file spells in its own way."""
_MODULES = {"torch": torch, "F": torch.nn.functional, "nn": torch.nn, "math": math}
Value = Callable[[Slot], torch.Tensor]
"""What a slot holds in the running repetition."""


@dataclass(frozen=True)
class Rewrite:
    """One taped call, or one argument of it, computed in another way."""

    call: Call
    template: str
    """A Python expression; {torch} and {F} are those modules, any other hole is one of ``holes``."""
    holes: Mapping[str, Operand] = field(default_factory=dict)
    place: int | None = None
    """Which positional argument is replaced; None: the call as a whole."""
    name: str = ""
    """Of that argument, if it may be passed by name."""
    result: bool = False
    """Whether it is the call's result that is computed on: hole {x} is what the call makes."""
    index: int | None = None
    """Which of its results, where it makes several."""

    @property
    def target(self) -> ast.expr | ast.AugAssign:
        """The expression of the user's that is replaced."""
        operand = None if self.place is None else self.call.operand(self.place, self.name)
        return operand.node if operand is not None else self.call.node

    @property
    def where(self) -> tuple[str, Span]:
        """File and place of the target: the same for each run of this expression."""
        return self.call.source.file, self.call.source.span(self.target)

    def used(self) -> list[str]:
        """Names of its holes, as often as they stand there."""
        return [name for name in HOLE.findall(self.template) if name not in SPELLED]

    def new(self, value: Value) -> Any:
        """The result, from what the repetition holds."""
        names = {key: _held(item.value, value) for key, item in self.holes.items()}
        text = HOLE.sub(lambda hole: hole[1], self.template)
        return eval(text, {**_MODULES, **names})  # the printed text itself is what is proven


def _held(item: Any, value: Value) -> Any:
    """An argument as the tape has it, with tensors in place of slots."""
    if isinstance(item, tuple | list):
        return type(item)(_held(one, value) for one in item)
    return value(item) if isinstance(item, Slot) else item


def run(
    rewrites: Sequence[Rewrite],
    value: Value,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """The call ``func(*args, **kwargs)`` with its rewrites: as a whole, or with some arguments replaced."""
    after = [one for one in rewrites if one.result]
    if after:
        rest = [one for one in rewrites if not one.result]
        return _continued(after[0], value, run(rest, value, func, args, kwargs))
    whole = next((one for one in rewrites if one.place is None), None)
    if whole is not None:
        return whole.new(value)
    given, named = list(args), dict(kwargs)
    for one in rewrites:
        assert one.place is not None
        if one.name in named:
            named[one.name] = one.new(value)
        else:
            given[one.call.taped(one.place)] = one.new(value)
    return func(*given, **named)


def _continued(rewrite: Rewrite, value: Value, made: Any) -> Any:
    """What the call made, put through the template."""
    known = rewrite.holes["x"].value
    if rewrite.index is None:
        return rewrite.new(lambda slot: made if slot is known else value(slot))
    made = list(made)
    one = made[rewrite.index]
    made[rewrite.index] = rewrite.new(lambda slot: one if slot is known else value(slot))
    return tuple(made)


@dataclass(frozen=True)
class Proposal:
    """One way to mend a culprit."""

    title: str
    """In the imperative: "call torch.log_softmax, which forms no probabilities"."""
    rewrites: tuple[Rewrite, ...]
    """The last one makes what the repaired piece of the formula makes."""
    bends: str = ""
    """How the objective differs from the user's, with {} for how many; "" where it is the same in exact arithmetic."""
    bent: tuple[int, int] = (0, 0)
    """How many values the objective differs for, and of how many (0: of all rows), over all runs of the expression."""
    until: tuple[int, ...] = ()
    """Orders of the calls that make what they made before, in all runs; where not given, that of the last rewrite."""

    @property
    def objective(self) -> str:
        """How it differs, with the count."""
        some, every = self.bent
        return self.bends.replace("{}", f"{some:,} of {every:,}" if every else f"{some:,}")

    @property
    def ends(self) -> tuple[int, ...]:
        """The same, given or not."""
        return self.until or (self.rewrites[-1].call.entry.order,)


def by_order(proposals: Iterable[Proposal]) -> dict[int, list[Rewrite]]:
    """Rewrites by their call's position on the tape."""
    found: dict[int, list[Rewrite]] = {}
    for proposal in proposals:
        for rewrite in proposal.rewrites:
            found.setdefault(rewrite.call.entry.order, []).append(rewrite)
    return found
