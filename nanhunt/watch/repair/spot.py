"""What a repair is chosen by: the taped call to be mended, the calls around it, and where they are written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from ..names import operation
from ..scene import Scene
from ..step_graph import VIEWS, StepGraph, slot_argument
from ..tape import Entry, Slot, slots_in
from .rewrite import Rewrite
from .source import Call, Operand, call_of

PICKS = VIEWS | {
    "gather",
    "index",
    "take_along_dim",
    "index_select",
    "diagonal",
    "diag",
    "cat",
    "stack",
    "neg",
}
"""Calls that hand on some of the numbers they are given: a function of each number may be taken before them."""


@dataclass(frozen=True)
class Spot:
    """One call that is to be mended."""

    entry: Entry
    fault: Scene
    """The culprit: this call, or another run of the same expression."""
    graph: StepGraph
    """The calls that feed the loss."""
    tape: StepGraph
    """All calls since the last step: metrics too."""

    @property
    def name(self) -> str:
        """The operation."""
        return operation(self.entry.func).rstrip("_")

    @property
    def backward(self) -> bool:
        """Whether it is the gradient that is not finite."""
        return self.fault.item.node is not None

    @cached_property
    def call(self) -> Call | None:
        """Where it is written."""
        return call_of(self.entry)

    def operand(self, place: int, name: str = "") -> Operand | None:
        """One of its arguments, with its text."""
        return self.call.operand(place, name) if self.call is not None else None

    def value(self, operand: Operand | None) -> torch.Tensor | None:
        """What a tensor operand held."""
        slot = operand.value if operand is not None else None
        return self.graph.value(slot) if isinstance(slot, Slot) else None

    @property
    def given(self) -> torch.Tensor | None:
        """Its first argument's value."""
        return self.graph.value(slot_argument(self.entry, 0, "input"))

    @property
    def result(self) -> torch.Tensor | None:
        """Its result's value."""
        return self.graph.value(self.entry.out) if isinstance(self.entry.out, Slot) else None

    def maker(self, place: int = 0) -> Entry | None:
        """The call that made an argument, seen through views."""
        return self.graph.made_by(slot_argument(self.entry, place))

    def at(self, entry: Entry) -> Spot:
        """Another call of the same step."""
        return Spot(entry, self.fault, self.graph, self.tape)

    def feeding(self, *names: str) -> Entry | None:
        """The nearest call of these names whose numbers the first argument is made of, by views and picks only."""
        slot = slot_argument(self.entry, 0, "input")
        for _ in range(12):
            maker = self.graph.maker(slot) if slot is not None else None
            if maker is None:
                return None
            name = operation(maker.func).rstrip("_")
            if name in names:
                return maker
            if name not in PICKS - {"neg", "cat", "stack"}:
                return None
            slot = next(iter(slots_in(maker.args)), None)
        return None

    def only_feeds(self, above: Entry, beside: Entry | None = None) -> bool:
        """Whether all that is made of the result of ``above`` is what this call, or ``beside``, is given."""
        ends = {self.entry.order, beside.order if beside is not None else -1}
        waiting = [above]
        while waiting:
            for reader in self.tape.reading(waiting.pop()):
                if reader.order in ends:
                    continue
                if operation(reader.func) not in PICKS - {"neg"}:
                    return False
                waiting.append(reader)
        return True

    def whole(self, template: str, **holes: Operand | None) -> Rewrite | None:
        """The call computed by the template; None where it, or one of the holes, cannot be told from the source."""
        if self.call is None or None in holes.values():
            return None
        return Rewrite(self.call, template, {key: item for key, item in holes.items() if item is not None})

    def argument(
        self, template: str, place: int = 0, name: str = "", **holes: Operand | None
    ) -> Rewrite | None:
        """One argument replaced: hole {x} is the argument as it is."""
        operand = self.operand(place, name)
        if self.call is None or operand is None or None in holes.values():
            return None
        known = {key: item for key, item in holes.items() if item is not None}
        return Rewrite(self.call, template, {"x": operand, **known}, place, name)

    def readers(self) -> Iterator[Entry]:
        """The calls that read its result, through views."""
        yield from self.graph.read_by(self.entry)
