"""From observations to culprits, and to the tensors a capture holds: told with the step's graph at hand."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from nanhunt.operations.values.rules import NON_FINITE

from .causes import cause_of
from .incident import Culprit, Phase
from .loaded import Loaded, Origin
from .names import Names, module_path, operation, plain
from .numbers import address, numbers
from .observer import Observation
from .scene import Scene
from .second_look import Repetition
from .site import Site, resolve
from .softmax import Softmax
from .step_graph import VIEWS, StepGraph, slot_argument
from .subject import Subject, subjects, values
from .tape import Entry, Slot, Tape


@dataclass
class Exhibits:
    """Tensors of the failing step: those of the culprit, and the softmax it was about, if it was."""

    logits: torch.Tensor | None = None
    """(..., classes): what the softmax was given."""
    targets: torch.Tensor | None = None
    """(...): the labels that the loss call was given."""
    plain: bool = False
    """Whether the loss is cross entropy and nothing else, so that a way of writing that is a way of writing this."""
    handwritten: bool = False
    """Whether the softmax is made of exp, sum and a division."""
    options: dict[str, Any] = field(default_factory=dict)
    """How ``nanhunt.check`` has to reduce the rows."""
    subjects: tuple[Subject, ...] = ()
    """What a capture may hold, the most telling first."""


class Story:
    """Turns observations into culprits."""

    def __init__(
        self,
        names: Names,
        tape: Tape,
        look: Repetition | None,
        losses: Sequence[float] = (),
        loaded: Loaded | None = None,
    ) -> None:
        self.names = names
        self.tape = tape
        self.look = look
        self.losses = losses
        self.loaded = loaded
        self.graph = StepGraph(look.entries if look else tape.entries, look.values if look else {})

    def scene(self, item: Observation) -> Scene:
        """The observation with its call and the step around it."""
        where = item.where
        if where is not None and not isinstance(where, Entry):
            where = self.graph.at(where[0], where[1])
        return Scene(item, where, self.graph, self.losses)

    def culprit(self, item: Observation) -> Culprit:
        """One operation that made NaN or infinity, or the tensor that brought it in."""
        if item.where is None and not item.node:
            return self._given(item)
        scene = self.scene(item)
        cause = cause_of(scene)
        called = operation(scene.entry.func) if scene.entry else plain(item.op)
        inside = plain(item.op)
        return Culprit(
            operation=called,
            phase=Phase.BACKWARD if item.node else Phase.FORWARD,
            site=site_of(item),
            module=module_of(item),
            detail="" if called.strip("_") == inside else inside,
            out=item.out,
            inputs=item.inputs,
            reason=cause.reason,
            rule=cause.rule,
            name=cause.name,
            fix=cause.fix,
            own=own_site(scene.entry),
        )

    def _given(self, item: Observation) -> Culprit:
        """A tensor that was bad before the first operation of the step."""
        slot, reader = self._reader(item)
        original = slot.tensor if slot else None
        name = self.names.of(original) if original is not None else f"a tensor of shape {item.out.shape}"
        parameter = item.op == "parameter" or (original is not None and original.requires_grad)
        reader = self._loading(reader) or reader
        into = slot_argument(reader, 0) if reader and operation(reader.func) == "copy_" else None
        if into is not None and into is not slot and into.tensor is not None:
            # Loaded: what the model calls it says more than what the file called it.
            name = self.names.known(into.tensor) or name
            parameter = parameter or isinstance(into.tensor, torch.nn.Parameter)
        kind = "parameter" if parameter else "buffer" if name in self.names.buffers else "input"
        tensor = into.tensor if into is not None and into.tensor is not None else original
        origin = self.loaded.origin(tensor, name) if self.loaded and tensor is not None else None
        came = f"; {origin.sentence}" if origin else self._made(original)
        return Culprit(
            operation=name,
            phase=Phase.PARAMETER if parameter else Phase.INPUT,
            site=resolve(reader.code, reader.instruction) if reader else None,
            module=module_path(reader.module) if reader else "",
            detail=operation(reader.func) if reader else "",
            out=numbers(tensor) if origin and tensor is not None else item.out,
            inputs=(),
            reason=f"the {kind} held it before the first operation of the step{came}",
            rule=NON_FINITE.code,
            name=NON_FINITE.name,
            fix=_mended_file(origin) if origin else _given_fix(kind, name),
            tensor_names=(name,),
            own=own_site(reader),
        )

    def _loading(self, reader: Entry | None) -> Entry | None:
        """The copy into the model, where what was loaded is first looked at in another shape."""
        if reader is None or operation(reader.func) not in VIEWS:
            return None
        return next((call for call in self.graph.read_by(reader) if operation(call.func) == "copy_"), None)

    def _made(self, tensor: torch.Tensor | None) -> str:
        """Which call wrote its numbers before the first step, where that is known and may be the fault."""
        made = self.tape.origin(tensor) if tensor is not None else None
        if made is None or operation(made.func).removesuffix("_like") in _FACTORIES:
            return ""
        return f"; it was made by {operation(made.func)} at {resolve(made.code, made.instruction).short}"

    def _reader(self, item: Observation) -> tuple[Slot | None, Entry | None]:
        if self.look is None:
            place = address(item.tensors[0])
            known = ((one, one.tensor) for one in self.tape.inputs)
            slot = next((one for one, it in known if it is not None and address(it) == place), None)
        else:
            copy = item.tensors[0]
            slot = next((one for one, tensor in self.look.inputs.items() if tensor is copy), None)
        readers = self.graph.readers.get(slot, []) if slot is not None else []
        # Of a parameter the forward pass is the last reader: initialisation and loading come before it.
        return slot, (readers[-1] if item.op == "parameter" else readers[0]) if readers else None

    def exhibits(self, guilty: Sequence[Observation]) -> Exhibits:
        """What a capture should hold: the operation that the first culprit is part of; rows, if it is a softmax."""
        if not guilty:
            return Exhibits()
        first = guilty[0]
        if first.where is None and not first.node:
            return Exhibits(subjects=(values(first, self.culprit(first).operation),))
        scene = self.scene(first)
        written = values(first, "result")
        about = self._rows(scene)
        if about is None:
            return Exhibits(subjects=(*subjects(scene), written))
        roles = {"logits": about.logits, "targets": about.targets}
        known = {role: tensor for role, tensor in roles.items() if tensor is not None}
        rows = Subject("cross-entropy", known, about.options)
        return replace(about, subjects=(rows, *subjects(scene), written))

    def _rows(self, scene: Scene) -> Exhibits | None:
        """The softmax's rows and labels, where the culprit's rule is about one."""
        about = scene.softmax if scene.item.where is not None and cause_of(scene).rule else None
        logits = self.graph.value(about.logits) if about else None
        if about is None or logits is None or not logits.dim():
            return None
        rows = logits.detach().movedim(about.dim, -1)
        # Beside labels `nanhunt check` judges cross entropy: they are handed on only where the loss is that.
        labels = self._labels(about, rows) if about.plain else None
        options = about.options if about.plain else {}
        # Code that is printed is run with the classes last: it is proven only where the user has them there.
        last = about.dim in (-1, logits.dim() - 1)
        softmax = about.handwritten == "softmax"
        return Exhibits(rows, labels, about.plain and last, softmax and last, options)

    def _labels(self, softmax: Softmax, rows: torch.Tensor) -> torch.Tensor | None:
        labels = self.graph.value(softmax.labels)
        return labels.detach().reshape(rows.shape[:-1]) if labels is not None else None


_FACTORIES = frozenset(
    {"zeros", "ones", "empty", "full", "rand", "randn", "randint", "arange", "eye", "clone", "to"}
)
"""Calls that make no NaN of their own."""
_GIVEN = {
    "parameter": (
        "Load a sound checkpoint or initialise it anew; `nanhunt check CHECKPOINT` lists every tensor of a file."
    ),
    "buffer": "Compute or load this buffer anew: it is part of the model, every step reads it.",
    "input": (
        "Clean the data, or leave such samples out, before the model sees them; `nanhunt check FILE` lists them."
    ),
}
_STATISTICS = (
    "A forward pass in training mode wrote it: call reset_running_stats(), or load a sound checkpoint."
)


def _given_fix(kind: str, name: str) -> str:
    return _STATISTICS if name.endswith(("running_mean", "running_var")) else _GIVEN[kind]


def _mended_file(origin: Origin) -> str:
    if origin.largest is not None:
        return "Load it in float32 or bfloat16, whose range holds it."
    return f"Load a sound file: `nanhunt check {shlex.quote(origin.file)}` lists what this one holds."


def _place(item: Observation) -> tuple[Any, int, Any] | None:
    where = item.where
    return (where.code, where.instruction, where.module) if isinstance(where, Entry) else where


def own_site(entry: Entry | None) -> Site | None:
    """The user's own line beside one in an installed package."""
    return resolve(*entry.own) if entry is not None and entry.own is not None else None


def site_of(item: Observation) -> Site | None:
    """The line of an observation."""
    place = _place(item)
    return resolve(place[0], place[1]) if place else None


def module_of(item: Observation) -> str:
    """The module that was running."""
    place = _place(item)
    return module_path(place[2]) if place else ""
