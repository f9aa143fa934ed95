"""The failing step as a file: what ``nanhunt run --replay`` repeats without the script.

It holds the slice of the tape that feeds the loss: for each call the names of the low-level operations that it came
to, the inputs, and the random state. No code: what a file may ask for is a fixed list of operations.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nanhunt.operations.call.spelling import CannotSpell, write

from .incident import Incident
from .names import Names, module_path, operation
from .numbers import tensors_in
from .program import Program, Writer
from .recorder import Opaque
from .second_look import CannotRepeat, Repetition, Step, repeat
from .site import resolve
from .tape import Entry, Slot, Tape, slot_of, slots_in

VERSION = 1
MAX_BYTES = 64 * 2**20
"""Of the inputs: a larger step is not saved."""


class CannotSave(CannotRepeat):
    """Why the step cannot be saved; its text completes "the step was not saved: "."""


@dataclass
class _Written:
    """The step as it was repeated to be written down."""

    programs: dict[int, Program]
    inputs: dict[Slot, torch.Tensor]
    """What they held before the first call."""


def save(
    path: Path,
    tape: Tape,
    roots: Sequence[tuple[Slot, torch.Tensor | None]],
    names: Names,
    incident: Incident,
    gradients: Sequence[torch.Tensor],
) -> None:
    """Write the step whose results are ``roots``; ``gradients``: the leaves whose gradients were bad, if they were.

    Raises CannotSave for a step that no file can hold, CannotRepeat as ``repeat`` does, OSError.
    """
    tape = _with_leaves_given(tape, gradients)
    entries = Step.of(tape, [slot for slot, _ in roots]).entries
    inputs = [slot for slot in tape.inputs if any(slot in entry.given for entry in entries)]
    _check(entries, inputs, roots, backward=bool(gradients))
    done = _write_down(tape, entries, inputs, roots, backward=bool(gradients))
    number = {slot: str(n) for n, slot in enumerate(_slots(entries, inputs))}
    constants = {
        f"{order}.{name}": tensor
        for order, program in done.programs.items()
        for name, tensor in program.constants.items()
    }
    leaves = {id(leaf) for leaf in gradients}
    step = {
        "version": VERSION,
        "entries": [_entry(entry, done.programs[entry.order], number) for entry in entries],
        "inputs": [_input(slot, number, names, leaves) for slot in inputs],
        "memory": [slot.memory for slot in number],
        "roots": [number[slot] for slot, _ in roots],
        "backward": bool(gradients),
    }
    random = tape.state_before(next((entry.order for entry in entries if entry.draws), 0))[1]
    assert random is not None  # else ``repeat`` has refused
    told = {"op": "values", "step": incident.step, "what": incident.what, "replay": json.dumps(step)}
    content = {
        "nanhunt": told,
        "inputs": {number[slot]: tensor.cpu() for slot, tensor in done.inputs.items()},
        "constants": constants,
        "seeds": {number[slot]: seed.detach().cpu() for slot, seed in roots if seed is not None},
        "random": random.cpu,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def _with_leaves_given(tape: Tape, leaves: Iterable[torch.Tensor]) -> Tape:
    """The tape with leaves that the step itself made as inputs: what is made anew has no gradient to look at."""
    found = [(leaf, tape.find(leaf)) for leaf in leaves]
    made = {
        slot
        for leaf, slot in found
        if slot is not None and slot not in tape.inputs and leaf._version == slot.version
    }
    made -= {slot for entry in tape.entries if entry.out not in made for slot in entry.written}
    if not made:
        return tape
    given = copy.copy(tape)
    given.inputs = [*tape.inputs, *made]
    makers = [entry for entry in tape.entries if entry.out in made]
    # Their random numbers are still to be drawn, or later ones would be others.
    drawn = {
        entry.order: entry._replace(out=slot_of(torch.empty(0)), discarded=True)
        for entry in makers
        if entry.draws
    }
    given.entries = [
        drawn.get(entry.order, entry)
        for entry in tape.entries
        if entry.out not in made or entry.order in drawn
    ]
    return given


def _check(
    entries: Sequence[Entry],
    inputs: Sequence[Slot],
    roots: Sequence[tuple[Slot, torch.Tensor | None]],
    *,
    backward: bool,
) -> None:
    """Raise CannotSave where it is known beforehand."""
    opaque = [entry.func.__name__ for entry in entries if isinstance(entry.func, Opaque) and entry.grad]
    custom = [name for name in opaque if name != "grad" and not name.startswith("compiled ")]
    if backward and custom:
        raise CannotSave(f"the backward of {custom[0]} is code of its own, and a file holds no code")
    tensors = [slot.tensor for slot in inputs]
    if any(tensor is not None and tensor.device.type != "cpu" for tensor in tensors) and any(
        entry.draws for entry in entries
    ):
        raise CannotSave(
            "it draws random numbers on another device than the CPU, which come out differently elsewhere"
        )
    size = sum(one.numel() * one.element_size() for one in tensors if one is not None)
    if size > MAX_BYTES:
        raise CannotSave(f"its inputs take {size / 2**20:,.0f} MiB, more than {MAX_BYTES / 2**20:.0f}")


def _write_down(
    tape: Tape,
    entries: Sequence[Entry],
    inputs: Sequence[Slot],
    roots: Sequence[tuple[Slot, torch.Tensor | None]],
    *,
    backward: bool,
) -> _Written:
    done = _Written({}, {})

    def note(
        entry: Entry,
        held: Callable[[Slot], torch.Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if not done.inputs:  # nothing has been written to yet
            done.inputs.update({slot: held(slot).detach().clone() for slot in inputs})
        writer = Writer(list(tensors_in([args, kwargs])))
        with writer:
            out = entry.func(*args, **kwargs)
        try:
            done.programs[entry.order] = writer.program(
                _called(entry), out if entry.out is not None else None
            )
        except CannotSpell as reason:
            raise CannotSave(str(reason)) from None
        if backward and writer.reaches_outside:
            raise CannotSave(f"gradients go through {_called(entry)} to tensors that it was not given")
        return out

    instead = {entry.order: functools.partial(note, entry) for entry in entries}
    look: Repetition = repeat(tape, roots, backward=False, instead=instead)
    assert len(look.entries) == len(done.programs)
    return done


def _called(entry: Entry) -> str:
    """The name by which the tape knows what a call does."""
    return str(getattr(entry.func, "__name__", operation(entry.func)))


def _slots(entries: Iterable[Entry], inputs: Iterable[Slot]) -> dict[Slot, None]:
    """All of the step's, inputs first."""
    found = dict.fromkeys(inputs)
    for entry in entries:
        found |= dict.fromkeys(slots_in((entry.args, entry.kwargs, entry.out)))
    return found


def _entry(entry: Entry, program: Program, number: dict[Slot, str]) -> dict[str, Any]:
    site, own = resolve(entry.code, entry.instruction), resolve(*entry.own) if entry.own is not None else None
    return {
        **program.spelled(),
        "args": [_argument(value, number) for value in entry.args],
        "kwargs": {key: _argument(value, number) for key, value in entry.kwargs.items()},
        "made": _argument(entry.out, number),
        "recorded": entry.grad,
        "draws": entry.draws,
        "discarded": entry.discarded,
        "order": entry.order,
        "site": [site.file, site.line, site.function],
        "own": [own.file, own.line, own.function] if own is not None else None,
        "module": module_path(entry.module),
    }


def _argument(value: Any, number: dict[Slot, str]) -> Any:
    """As causes look at it: tensors by their slots; what no file can hold is only named."""
    if isinstance(value, Slot):
        return {"tensor": number[value]}
    if isinstance(value, list | tuple):
        return [_argument(item, number) for item in value]
    try:
        return write(value, lambda tensor, label: label)
    except CannotSpell:
        return {"text": type(value).__name__}


def _input(slot: Slot, number: dict[Slot, str], names: Names, leaves: set[int]) -> dict[str, Any]:
    tensor = slot.tensor
    assert tensor is not None  # else ``repeat`` has refused
    return {
        "slot": number[slot],
        "name": names.known(tensor) or "",
        "parameter": isinstance(tensor, torch.nn.Parameter),
        "requires_grad": tensor.requires_grad,
        "bad_gradient": id(tensor) in leaves,
    }
