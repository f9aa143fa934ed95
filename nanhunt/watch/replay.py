"""``nanhunt run --replay``: a saved step is repeated without its script, and looked at as the run looked at it.

Nothing in the file is executed: it names operations, and only those of a fixed list are called.
"""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import torch

from nanhunt.errors import NanhuntError
from nanhunt.operations.call.allowed import overload
from nanhunt.operations.call.spelling import BadSpelling, read

from .incident import Incident
from .investigation import Evidence, investigate
from .numbers import checkable, finite
from .program import Program, program_of
from .recorder import Recorder
from .saved_step import VERSION
from .second_look import CannotRepeat, Repetition, repeat
from .tape import Entry, Module, RandomState, Slot, Tape, slot_of

_HINT = "Give the file that `nanhunt run` wrote beside its capture, step-N-replay.pt."


@dataclass
class Replay:
    """A step from a file."""

    step: int
    what: str
    tape: Tape
    roots: list[tuple[Slot, torch.Tensor | None]]
    backward: bool
    """Whether gradients were what went bad."""
    leaves: list[torch.Tensor]
    """Whose gradients those were."""
    names: Mapping[int, str]
    """Of inputs, by id."""

    def repeated(self) -> Repetition:
        """The step, done again. Raises NanhuntError where PyTorch does not take it here."""
        try:
            return repeat(self.tape, self.roots, backward=self.backward)
        except (CannotRepeat, BadSpelling) as reason:
            raise NanhuntError(f"The step cannot be repeated here: {reason}.", _HINT) from None

    def incident(self) -> Incident | None:
        """What goes bad when it is repeated; None where nothing does now. Raises NanhuntError as ``repeated`` does."""
        look = self.repeated()
        bad = any(checkable(look.values[slot]) and not finite(look.values[slot]) for slot, _ in self.roots)
        if not bad and not (self.backward and look.bad_gradients()):
            return None
        recorder = Recorder(lambda tensor, value: None)
        recorder.tape = self.tape
        evidence = Evidence(
            self.what,
            [],
            self.leaves,
            [slot for slot, _ in self.roots],
            len(self.leaves),
            self.step,
            known=self.names,
        )
        return investigate(evidence, recorder, None).incident


def repeats(path: Path, incident: Incident) -> bool:
    """Whether the step in the file goes bad as the run's did: in the same operations, for the same causes."""
    again = load(str(path)).incident()
    return again is not None and [each.name for each in again.culprits] == [
        each.name for each in incident.culprits
    ]


def load(path: str) -> Replay:
    """The step that a file holds.

    Raises NanhuntError for a file that cannot be read, that holds no step, or one that asks for what no file may.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise NanhuntError(f"cannot read {path}: {error.strerror}", _HINT) from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        raise NanhuntError(
            f"{path} is not a file that nanhunt run has written, or it is damaged.", _HINT
        ) from None
    told = content.get("nanhunt") if isinstance(content, dict) else None
    if not isinstance(told, dict) or not isinstance(told.get("replay"), str):
        why = (
            f": {told['not_saved']}"
            if isinstance(told, dict) and isinstance(told.get("not_saved"), str)
            else ""
        )
        raise NanhuntError(f"{path} holds no step that could be repeated{why}.", _HINT)
    try:
        return _replay(told, json.loads(told["replay"]), content)
    except (BadSpelling, KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if isinstance(error, BadSpelling) else "it is damaged"
        raise NanhuntError(f"{path} holds no step that nanhunt has written: {reason}.", _HINT) from None


def _replay(told: Mapping[str, Any], step: Mapping[str, Any], content: Mapping[str, Any]) -> Replay:
    if step["version"] != VERSION:
        raise BadSpelling(f"it is of version {step['version']}, this nanhunt reads {VERSION}")
    tape = Tape()
    slots = [_slot(memory) for memory in step["memory"]]
    by_name = {str(number): slot for number, slot in enumerate(slots)}
    names, leaves = {}, []
    for one in step["inputs"]:
        slot, tensor = by_name[one["slot"]], _input(content["inputs"][one["slot"]], one)
        slot.held, slot.version = tensor, tensor._version
        tape.inputs.append(slot)
        leaves += [tensor] if one["bad_gradient"] else []
        if one["name"]:
            names[id(tensor)] = str(one["name"])
    tape.entries = [_entry(one, by_name, content["constants"]) for one in step["entries"]]
    tape.count, tape.sliced = len(tape.entries), True
    tape.random_state = _random(content["random"])
    roots = [(by_name[name], content["seeds"].get(name)) for name in step["roots"]]
    return Replay(int(told["step"]), str(told["what"]), tape, roots, bool(step["backward"]), leaves, names)


def _slot(memory: int) -> Slot:
    slot = slot_of(torch.empty(0))
    slot.memory = int(memory)
    return slot


def _input(tensor: torch.Tensor, told: Mapping[str, Any]) -> torch.Tensor:
    if told["parameter"]:
        return torch.nn.Parameter(tensor, requires_grad=bool(told["requires_grad"]))
    return tensor.requires_grad_(bool(told["requires_grad"]))


def _entry(
    told: Mapping[str, Any], slots: Mapping[str, Slot], constants: Mapping[str, torch.Tensor]
) -> Entry:
    order = int(told["order"])
    mine = {
        name.partition(".")[2]: tensor for name, tensor in constants.items() if name.startswith(f"{order}.")
    }
    program = program_of({key: told[key] for key in ("name", "lines", "out")}, mine)
    _refuse(program)
    made = read(told["made"], slots)
    code = _place(told["site"])
    return Entry(
        program,
        tuple(read(each, slots) for each in told["args"]),
        {str(key): read(each, slots) for key, each in told["kwargs"].items()},
        tuple(made) if isinstance(made, list) else made,
        code,
        0,
        _module(str(told["module"])),
        bool(told["recorded"]),
        (),  # what autocast cast is written down as a cast
        0,
        order,
        bool(told["draws"]),
        (_place(told["own"]), 0) if told["own"] is not None else None,
        bool(told["discarded"]),
    )


def _refuse(program: Program) -> None:
    """Before anything runs. Raises BadSpelling."""
    for line in program.lines:
        if overload(line.call.name) is None:
            raise BadSpelling(f"it asks for {line.call.name[:60]}, which no file may")


def _place(told: list[Any]) -> CodeType:
    """A code object that only says where: file, line and function of the user's call. It is never run."""
    file, line, function = str(told[0]), int(told[1]), str(told[2])
    empty = compile("pass", "<step>", "exec")
    return empty.replace(
        co_filename=file, co_firstlineno=line, co_name=function, co_qualname=function, co_linetable=b""
    )


def _module(path: str) -> Module | None:
    """Something that ``module_path`` calls so: "layers.3.attn (Attention)"."""
    if not path:
        return None
    name, _, rest = path.partition(" (")
    called = rest.removesuffix(")") if rest else name
    running: Any = type(called, (), {"named_modules": lambda self: [(name if rest else "", self)]})()
    return running, None


def _random(state: torch.Tensor) -> RandomState:
    found = RandomState()
    if state.dtype != torch.uint8 or state.shape != found.cpu.shape:
        raise BadSpelling("its random state is none of this PyTorch")
    found.cpu, found.cuda = state, []
    return found
