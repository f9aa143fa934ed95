"""The calls of a step as a graph: which call made a tensor, which calls read it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch

from .names import operation
from .tape import Entry, Slot, slots_in

VIEWS = frozenset(
    {
        *(
            "view",
            "reshape",
            "squeeze",
            "unsqueeze",
            "flatten",
            "unflatten",
            "transpose",
            "permute",
            "t",
            "T",
        ),
        *("mT", "movedim", "swapaxes", "contiguous", "clone", "expand", "expand_as", "view_as", "reshape_as"),
        *(
            "float",
            "double",
            "to",
            "type_as",
            "alias",
            "ravel",
            "narrow",
            "select",
            "chunk",
            "split",
            "unbind",
        ),
    }
)
"""Calls that hand numbers on as they are, in another shape or dtype."""


class StepGraph:
    """Makers and readers of the tensors of one step."""

    def __init__(self, entries: Sequence[Entry], values: Mapping[Slot, torch.Tensor] | None = None) -> None:
        self.entries = entries
        self.values = values or {}
        """What the slots held in the repetition; empty where there was none."""
        self.makers = {slot: entry for entry in entries for slot in slots_in(entry.out)}
        self.readers: dict[Slot, list[Entry]] = {}
        for entry in entries:
            for slot in dict.fromkeys(entry.given):
                self.readers.setdefault(slot, []).append(entry)

    def at(self, code: object, instruction: int) -> Entry | None:
        """The last call that was made there."""
        there = (one for one in reversed(self.entries) if one.code is code and one.instruction == instruction)
        return next(there, None)

    def maker(self, slot: Slot) -> Entry | None:
        """The call that made a tensor; None for an input of the step."""
        return self.makers.get(slot)

    def made_by(self, slot: Slot | None, through: Collection[str] = VIEWS) -> Entry | None:
        """The nearest call above a tensor that is not one of ``through``."""
        entry = self.makers.get(slot) if slot is not None else None
        while entry is not None and operation(entry.func) in through:
            first = next(iter(entry.given), None)
            entry = self.makers.get(first) if first is not None else None
        return entry

    def source(self, slot: Slot) -> Slot:
        """What a tensor is a view of."""
        maker = self.makers.get(slot)
        while maker is not None and operation(maker.func) in VIEWS:
            slot = next(iter(maker.given), slot)
            maker = self.makers.get(slot)
        return slot

    def above(self, entry: Entry, through: Collection[str], depth: int = 8) -> Iterator[Entry]:
        """The calls that feed this one, nearest first, following on only those of ``through``."""
        waiting, seen = [entry], {id(entry)}
        for _ in range(depth):
            makers = [self.makers.get(slot) for call in waiting for slot in call.given]
            waiting = []
            for call in makers:
                if call is not None and id(call) not in seen:
                    seen.add(id(call))
                    yield call
                    if operation(call.func) in through:
                        waiting.append(call)

    def reading(self, entry: Entry) -> list[Entry]:
        """The calls that were given what this one made."""
        found = [call for slot in slots_in(entry.out) for call in self.readers.get(slot, [])]
        return list({id(call): call for call in found if call is not entry}.values())

    def read_by(self, entry: Entry) -> list[Entry]:
        """The same, looking through views."""
        found: list[Entry] = []
        for call in self.reading(entry):
            found += self.read_by(call) if operation(call.func) in VIEWS else [call]
        return found

    def alike(self, one: object, other: object, depth: int = 8) -> bool:
        """Whether two arguments hold the same numbers because they were computed twice in the same way."""
        if not isinstance(one, Slot) or not isinstance(other, Slot):
            return bool(one == other) if not _has_slots(one) and not _has_slots(other) else False
        makers = self.makers.get(one), self.makers.get(other)
        if one is other or None in makers or not depth:
            return one is other
        return self.computed_alike(*makers, depth - 1)  # type: ignore[arg-type]

    def computed_alike(self, one: Entry, other: Entry, depth: int = 8) -> bool:
        """Whether two calls are the same function of the same arguments."""
        if one is other:
            return True
        if operation(one.func) != operation(other.func) or one.draws or len(one.args) != len(other.args):
            return False
        named = one.kwargs.keys() | other.kwargs.keys()
        return all(map(self.alike, one.args, other.args, [depth] * len(one.args))) and all(
            self.alike(one.kwargs.get(name), other.kwargs.get(name), depth) for name in named
        )

    def twins(self, entry: Entry) -> list[Entry]:
        """The calls that computed the same once more, and the call itself; in order."""
        return [one for one in self.entries if one is entry or self.computed_alike(one, entry)]

    def value(self, slot: Slot | None) -> torch.Tensor | None:
        """What a slot held in the repetition."""
        return self.values.get(slot) if slot is not None else None


def argument(entry: Entry, place: int, name: str) -> object:
    """An argument of a call, wherever it was passed."""
    return (
        entry.kwargs[name] if name in entry.kwargs else entry.args[place] if place < len(entry.args) else None
    )


def slot_argument(entry: Entry, place: int, name: str = "") -> Slot | None:
    """The same, if it is a tensor."""
    given = argument(entry, place, name)
    return given if isinstance(given, Slot) else None


def _has_slots(value: object) -> bool:
    return any(True for _ in slots_in(value))
