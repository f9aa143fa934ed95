"""Regions that are one call on the tape, opened: the calls inside are put there, to be mended like others.

Compiled regions and checkpoints stay open: their gradient is that of their calls. A custom Function has a backward of
its own, so its calls are only there to find repairs; what is proven is the Function itself, run with them in place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..numbers import tensors_in
from ..recorder import Opaque, Recorder
from ..second_look import Instead, Step, repeat
from ..tape import Entry, RandomState, Slot, Tape, slots_in
from .rewrite import Rewrite, run

_CHECKPOINT = "CheckpointFunction"
"""torch.utils.checkpoint with use_reentrant=True: runs without gradients, and once more in backward."""


@dataclass(frozen=True)
class Opened:
    """A tape of the step with the calls of its regions in the place of each."""

    tape: Tape
    inner: Mapping[int, tuple[int, int]]
    """Order of a call on it -> order of its region on the first tape, and its place inside."""
    regions: Mapping[int, Sequence[Entry]]
    """The calls of each region, by its order on the first tape."""

    def instead(self, tape: Tape, rewrites: Mapping[int, list[Rewrite]]) -> dict[int, Instead]:
        """What stands for the calls of the first tape, so that the rewrites of this one's calls are done.

        A rewrite of a call inside of a region is done while the region runs.
        """
        inside: dict[int, dict[int, list[Rewrite]]] = {}
        for order, found in rewrites.items():
            region, place = self.inner[order]
            inside.setdefault(region, {})[place] = found
        entries = {entry.order: entry for entry in tape.entries}
        return {
            order: functools.partial(_edited, entries[order], self.regions[order], found)
            for order, found in inside.items()
        }


def opened(tape: Tape, roots: Sequence[Slot], *, functions: bool = False) -> Opened | None:
    """The step's compiled regions and checkpoints opened, or its custom Functions; None where it has none to open.

    Raises CannotRepeat where the step cannot be run once more for it.
    """
    entries = Step.of(tape, roots).entries
    wanted = [entry for entry in entries if isinstance(entry.func, Opaque) and _opens(entry) is not functions]
    if not wanted:
        return None
    regions = {entry.order: _Region() for entry in wanted}
    instead: dict[int, Instead] = {
        entry.order: functools.partial(regions[entry.order].run, entry) for entry in wanted
    }
    repeat(tape, [(slot, None) for slot in roots], backward=False, instead=instead)
    if not all(region.complete for region in regions.values()):
        return None
    return _spliced(tape, entries, regions)


class _Editing(Recorder):
    """Runs the calls of a region with some of them rewritten."""

    def __init__(self, entries: Sequence[Entry], rewrites: Mapping[int, list[Rewrite]]) -> None:
        super().__init__(lambda tensor, value: None)
        self.entries = entries
        self.rewrites = rewrites
        self.values: dict[Slot, torch.Tensor] = {}
        self.tape.random_state = RandomState()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """As the recorder does; the n-th call it notes is the n-th of the region."""
        place = self.tape.count
        out = super().__torch_function__(func, types, args, kwargs)
        if self.tape.count == place or place >= len(self.entries):
            return out
        entry = self.entries[place]
        self.values.update(zip(entry.given, tensors_in([args, kwargs or {}]), strict=False))
        if place in self.rewrites:
            out = run(self.rewrites[place], self.values.__getitem__, func, args, kwargs or {})
        self.values.update(zip(slots_in(entry.out), tensors_in([out]), strict=False))
        return out


def _edited(
    entry: Entry,
    entries: Sequence[Entry],
    rewrites: Mapping[int, list[Rewrite]],
    value: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    with _Editing(entries, rewrites):
        return entry.func(*args, **kwargs)


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


def _spliced(tape: Tape, entries: Sequence[Entry], regions: Mapping[int, _Region]) -> Opened:
    new, inner = Tape(), dict[int, tuple[int, int]]()
    first = next((entry.order for entry in entries if entry.draws), 0)
    _, new.random_state = tape.state_before(first)
    new.first_number = tape.first_number
    new.slots = dict(tape.slots)
    new.inputs = list(tape.inputs)
    new.changed = dict(tape.changed)
    for entry in entries:
        region = regions.get(entry.order)
        for place, one in enumerate([entry] if region is None else region.entries):
            if region is not None:
                inner[new.count] = entry.order, place
            # A checkpoint and a custom Function run without gradients.
            new.append(one._replace(order=new.count, grad=one.grad if region is None else entry.grad))
        if region is not None:
            own = region.recorder.tape
            new.slots.update(own.slots)
            new.changed |= {region.known.get(slot, slot): storage for slot, storage in own.changed.items()}
            new.inputs += [slot for slot in own.inputs if slot not in region.known]
    return Opened(new, inner, {order: region.entries for order, region in regions.items()})
