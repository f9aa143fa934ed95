"""Compiled regions and checkpoints, opened: the calls inside are put on the tape, to be mended like others."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..numbers import tensors_in
from ..recorder import Opaque, Recorder
from ..second_look import Instead, Step, repeat
from ..tape import Entry, RandomState, Slot, Tape, slots_in

_CHECKPOINT = "CheckpointFunction"
"""torch.utils.checkpoint with use_reentrant=True: runs without gradients, and once more in backward."""


def opened(tape: Tape, roots: Sequence[Slot]) -> Tape | None:
    """A tape of the step with the calls of compiled regions in the place of each; None where it has none to open.

    Raises CannotRepeat where the step cannot be run once more for it.
    """
    entries = Step.of(tape, roots).entries
    regions = {entry.order: _Region() for entry in entries if _opens(entry)}
    if not regions:
        return None
    instead: dict[int, Instead] = {
        entry.order: functools.partial(regions[entry.order].run, entry) for entry in entries if _opens(entry)
    }
    repeat(tape, [(slot, None) for slot in roots], backward=False, instead=instead)
    if not all(region.complete for region in regions.values()):
        return None
    return _spliced(tape, entries, regions)


def _opens(entry: Entry) -> bool:
    """Whether it is code whose gradient is that of its calls: not so a custom Function of the user's."""
    return isinstance(entry.func, Opaque) and (entry.func.compiled or entry.func.__name__ == _CHECKPOINT)


class _Region:
    """One run of a compiled region, recorded."""

    def __init__(self) -> None:
        self.recorder = Recorder(lambda tensor, value: None)
        self.known: dict[Slot, Slot] = {}
        """Its slots for what the tape around it has a slot for."""
        self.complete = False

    def run(self, entry: Entry, value: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Stands for the region in a repetition."""
        tape = self.recorder.tape
        tape.random_state = RandomState()  # the step's own is what counts
        given = list(tensors_in([args, kwargs]))
        self.known = dict(zip(map(tape.slot, given), entry.given, strict=True))
        with self.recorder:
            out = entry.func(*args, **kwargs)
        made = [tape.find(tensor) for tensor in tensors_in([out])]
        slots = list(slots_in(entry.out))
        if len(made) == len(slots) and None not in made and not tape.unnoted:
            self.known.update(zip(made, slots, strict=True))  # type: ignore[arg-type]
            self.complete = True
        return out

    @property
    def entries(self) -> list[Entry]:
        """Its calls, in the slots of the tape around it."""
        return [
            one._replace(
                args=_renamed(one.args, self.known),
                kwargs=_renamed(one.kwargs, self.known),
                out=_renamed(one.out, self.known),
            )
            for one in self.recorder.tape.entries
        ]


def _renamed(value: Any, known: Mapping[Slot, Slot]) -> Any:
    if isinstance(value, Slot):
        return known.get(value, value)
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        return type(value)([_renamed(item, known) for item in value])
    if isinstance(value, dict):
        return {key: _renamed(item, known) for key, item in value.items()}
    return value


def _spliced(tape: Tape, entries: Sequence[Entry], regions: Mapping[int, _Region]) -> Tape:
    new = Tape()
    first = next((entry.order for entry in entries if entry.draws), 0)
    _, new.random_state = tape.state_before(first)
    new.first_number = tape.first_number
    new.slots = dict(tape.slots)
    new.inputs = list(tape.inputs)
    for entry in entries:
        region = regions.get(entry.order)
        for one in [entry] if region is None else region.entries:
            new.append(one._replace(order=new.count, grad=entry.grad if _opens(entry) else one.grad))
        if region is not None:
            inner = region.recorder.tape
            new.slots.update(inner.slots)
            new.inputs += [slot for slot in inner.inputs if slot not in region.known]
    return new
