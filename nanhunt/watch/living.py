"""The part of a step that can be repeated though its beginning cannot: from results that are still in memory."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from .numbers import checkable, finite, in_memory
from .second_look import Step
from .tape import Entry, Slot, Tape, slots_in, version_of


def living_part(tape: Tape, roots: Sequence[Slot], *, least: bool = False) -> Tape | None:
    """A tape of what feeds ``roots`` from inputs that are there and from finite results that somebody still holds.

    As in FSDP, which frees gathered parameters: what the script computes from the model's output can be repeated from
    that output. ``least``: from the last such results, as few calls as can be; else only where a call needs what is
    gone. None where no call is left, or one would draw other random numbers.
    """
    entries = Step.of(tape, roots).entries
    rewritten = {slot for entry in entries for slot in entry.written}
    known = {slot for slot in tape.inputs if _is_there(slot)}
    given: list[Slot] = []
    kept: list[Entry] = []
    for entry in entries:
        read = set(entry.given)
        made = set(slots_in(entry.out)) - read
        living = {slot for slot in made - rewritten if _is_there(slot) and _is_finite(slot)}
        if read <= known and not (least and living == made != set()):
            kept.append(entry)
            known |= made
        else:
            known = known - entry.written | living
            given += living
    part = copy.copy(tape)
    part.entries = kept
    part.inputs = [*tape.inputs, *given]
    part.cut_short = False
    part.entries = part.slice(roots)
    lost = any(entry.draws for entry in tape.entries) and len(kept) < len(entries)
    drawn_otherwise = lost and any(entry.draws for entry in part.entries)
    return part if part.entries and known.issuperset(roots) and not drawn_otherwise else None


def _is_there(slot: Slot) -> bool:
    """Whether its numbers can be read, and are those that the tape has last seen."""
    tensor = slot.tensor
    return tensor is not None and in_memory(tensor) and version_of(tensor) == slot.version


def _is_finite(slot: Slot) -> bool:
    tensor = slot.tensor
    return tensor is not None and (not checkable(tensor) or finite(tensor))
