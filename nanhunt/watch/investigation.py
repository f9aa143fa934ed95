"""From "this step is bad" to an Incident: the looks are tried in turn, and the report says which one found it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

import torch

from .autopsy import Finding, autopsy
from .causes import cause_of
from .incident import Culprit, FoundBy, Incident, Link, Phase, Term
from .names import SOFTMAX_LIKE, Names, module_path, operation, plain, scopes
from .numbers import Signs, address, checkable, finite, numbers, tensors_in
from .observer import Observation, Observer, ancestors, culprits
from .recorder import Recorder
from .second_look import CannotRepeat, Repetition, repeat
from .site import Site, resolve
from .tape import Entry, Slot, Tape, slots_in

MAX_LINKS = 3
MAX_CULPRITS = 10


@dataclass
class Evidence:
    """What the trip wire saw."""

    what: str
    roots: list[tuple[torch.Tensor, torch.Tensor | None]]
    """What backward was called on (without a GradScaler's scale), each with its gradient."""
    gradients: list[torch.Tensor] = field(default_factory=list)
    """Parameters whose gradient is bad; empty: the roots themselves are."""
    slots: list[Slot] = field(default_factory=list)
    """Of results that may be gone from memory, instead of roots."""
    parameters: int = 0
    step: int = 0
    noticed: Site | None = None
    frame: FrameType | None = None


@dataclass
class Solved:
    """An incident, and the tensors from which capture and proof are made."""

    incident: Incident
    exhibits: Exhibits


@dataclass
class Exhibits:
    """Tensors of the failing step: what the culprit was given, and the logits and labels, if it was about those."""

    culprit_inputs: tuple[torch.Tensor, ...] = ()
    logits: torch.Tensor | None = None
    targets: torch.Tensor | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.culprit_inputs and self.logits is None


def investigate(evidence: Evidence, recorder: Recorder, live: Observer | None) -> Solved:
    """Find what made the step bad."""
    names = Names(recorder.roots.values(), evidence.frame)
    tape = recorder.tape
    try:
        look, roots, found_by = _look(evidence, tape, live)
    except CannotRepeat as reason:
        return _from_graph(evidence, tape, names, str(reason))
    guilty = culprits(roots)[:MAX_CULPRITS]
    if not evidence.gradients and found_by is FoundBy.REPETITION and _confirmed(evidence, tape, guilty):
        found_by = FoundBy.GRAPH
    story = _Story(names, tape, look)
    incident = Incident(
        step=evidence.step,
        what=evidence.what,
        noticed=evidence.noticed,
        culprits=tuple(story.culprit(item) for item in guilty),
        chain=_chain(roots, guilty),
        terms=_terms(evidence, names),
        bad_gradients=_first_bad(evidence, names, look, roots),
        parameters=evidence.parameters,
        found_by=found_by,
        notes=_notes(look),
    )
    return Solved(incident, story.exhibits(guilty))


def _look(
    evidence: Evidence, tape: Tape, live: Observer | None
) -> tuple[Repetition | None, list[Observation], FoundBy]:
    """Observations of the bad tensors: from watching the step, else from repeating it."""
    if live is not None:
        bad = [leaf.grad for leaf in evidence.gradients if leaf.grad is not None]
        seen = [live.of(tensor) for tensor in bad or [root for root, _ in evidence.roots]]
        known = [item for item in seen if item is not None]
        if known:
            return None, known, FoundBy.WATCHING
    if not evidence.roots and not evidence.slots:
        raise CannotRepeat("backward had made finite gradients")
    roots: list[tuple[Slot | None, torch.Tensor | None]] = [(slot, None) for slot in evidence.slots]
    roots += [(tape.find(tensor), seed) for tensor, seed in evidence.roots]
    found = [(slot, seed) for slot, seed in roots if slot is not None]
    if len(found) < len(roots):
        raise CannotRepeat("the loss was not made by recorded operations")
    look = repeat(tape, found, backward=bool(evidence.gradients))
    if evidence.gradients:
        bad = [copy.grad for copy in look.inputs.values() if copy.grad is not None and _bad(copy.grad)]
    else:
        bad = [look.values[slot] for slot, _ in found if _bad(look.values[slot])]
    known = [item for item in map(look.observer.of, bad) if item is not None]
    if not known:
        raise CannotRepeat("repeated from the same inputs on this process alone, it came out finite")
    return look, known, FoundBy.REPETITION


def _bad(tensor: torch.Tensor) -> bool:
    return checkable(tensor) and not finite(tensor)


def _confirmed(evidence: Evidence, tape: Tape, guilty: Sequence[Observation]) -> bool:
    """Whether the failing step's own graph shows the same operations going bad from finite inputs."""
    seen = [finding for root, _ in evidence.roots for finding in autopsy(root, tape)]
    shown = {id(finding.entry) for finding in seen if finding.certain and finding.entry is not None}
    return bool(guilty) and all(id(item.where) in shown for item in guilty)


def _notes(look: Repetition | None) -> tuple[str, ...]:
    if look is not None and look.changed_inputs:
        return (f"{look.changed_inputs} inputs were written to during the step: their numbers may differ",)
    return ()


class _Story:
    """Turns observations into culprits, with the tape at hand to tell what fed them."""

    def __init__(self, names: Names, tape: Tape, look: Repetition | None) -> None:
        self.names = names
        self.tape = tape
        self.look = look
        self.makers = {slot: entry for entry in tape.entries for slot in slots_in(entry.out)}

    def culprit(self, item: Observation) -> Culprit:
        if item.where is None and not item.node:
            return self._given(item)
        entry = item.where if isinstance(item.where, Entry) else None
        lineage = frozenset(operation(call.func) for call in self._feeding(entry))
        cause = cause_of(
            item, lineage | frozenset(plain(above.op) for above in ancestors(item) if above is not item)
        )
        called = operation(entry.func) if entry else plain(item.op)
        inside = plain(item.op)
        return Culprit(
            operation=called,
            phase=Phase.BACKWARD if item.node else Phase.FORWARD,
            site=_site(item),
            module=_module(item),
            detail="" if called.strip("_") == inside else inside,
            out=item.out,
            inputs=item.inputs,
            reason=cause.reason,
            rule=cause.rule,
            name=cause.name,
            fix=cause.fix,
        )

    def _given(self, item: Observation) -> Culprit:
        """A tensor that was bad before the first operation of the step."""
        slot, reader = self._reader(item)
        original = slot.tensor if slot else None
        name = self.names.of(original) if original is not None else f"a tensor of shape {item.out.shape}"
        parameter = item.op == "parameter" or (original is not None and original.requires_grad)
        kind = "parameter" if parameter else "input"
        return Culprit(
            operation=name,
            phase=Phase.PARAMETER if parameter else Phase.INPUT,
            site=resolve(reader.code, reader.instruction) if reader else None,
            module=module_path(reader.module) if reader else "",
            detail=operation(reader.func) if reader else "",
            out=item.out,
            inputs=(),
            reason=f"the {kind} held it before the first operation of the step",
            rule="NH501",
            name="non-finite-values",
            fix=_FIX_PARAMETER if parameter else _FIX_INPUT,
            tensor_names=(name,),
        )

    def _reader(self, item: Observation) -> tuple[Slot | None, Entry | None]:
        if self.look is None:
            place = address(item.tensors[0])
            slot = next(
                (one for one in self.tape.inputs if one.tensor is not None and address(one.tensor) == place),
                None,
            )
        else:
            copy = item.tensors[0]
            slot = next((one for one, tensor in self.look.inputs.items() if tensor is copy), None)
        if slot is None:
            return None, None
        readers = [entry for entry in self.tape.entries if slot in set(slots_in([entry.args, entry.kwargs]))]
        # Of a parameter the forward pass is the last reader: initialisation and loading come before it.
        return slot, (readers[-1] if item.op == "parameter" else readers[0]) if readers else None

    def _feeding(self, entry: Entry | None, depth: int = 12) -> list[Entry]:
        """The calls that made an entry's arguments, and theirs, nearest first."""
        found: list[Entry] = []
        waiting = [entry] if entry else []
        for _ in range(depth):
            above = [self.makers.get(slot) for call in waiting for slot in slots_in([call.args, call.kwargs])]
            waiting = [call for call in above if call is not None and not any(call is one for one in found)][
                :16
            ]
            found.extend(waiting)
            if any(operation(call.func) in SOFTMAX_LIKE for call in waiting):
                break
        return found

    def exhibits(self, guilty: Sequence[Observation]) -> Exhibits:
        """What a capture should hold."""
        if not guilty:
            return Exhibits()
        first = guilty[0]
        inputs = tuple(tensor.detach() for tensor in first.tensors)
        entry = first.where if isinstance(first.where, Entry) else None
        if entry is None or self.look is None:
            about_softmax = inputs and plain(first.op) in SOFTMAX_LIKE
            return Exhibits(inputs, inputs[0] if about_softmax else None)
        logits = self._logits(entry)
        return Exhibits(inputs, logits, self._targets(logits) if logits is not None else None)

    def _logits(self, entry: Entry) -> torch.Tensor | None:
        """The rows a softmax was taken of: the first argument of the nearest exp, softmax or cross entropy."""
        for call in [entry, *self._feeding(entry)]:
            if operation(call.func).rstrip("_") in SOFTMAX_LIKE:
                for slot in slots_in(call.args):
                    value = self.look.values.get(slot) if self.look else None
                    if value is not None and checkable(value) and value.dim() >= 1:
                        return value.detach()
        return None

    def _targets(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Integer labels that a later call was given, one per row."""
        assert self.look is not None
        rows, classes = logits.shape[:-1], logits.shape[-1]
        for call in reversed(self.tape.entries):
            if operation(call.func) not in _TAKES_LABELS:
                continue
            # The last that fits: in p[torch.arange(n), labels] the first only counts the rows.
            for tensor in reversed(self._values(call)):
                if (
                    tensor.dtype is torch.int64
                    and tensor.numel() == rows.numel()
                    and _within(tensor, classes)
                ):
                    return tensor.detach().reshape(rows)
        return None

    def _values(self, call: Entry) -> list[torch.Tensor]:
        assert self.look is not None
        return [
            self.look.values[slot] for slot in slots_in([call.args, call.kwargs]) if slot in self.look.values
        ]


_TAKES_LABELS = frozenset({"cross_entropy", "nll_loss", "gather", "index", "take_along_dim", "one_hot"})
_FIX_PARAMETER = (
    "Load a sound checkpoint or initialise it anew; `nanhunt check CHECKPOINT` lists every tensor of a file."
)
_FIX_INPUT = (
    "Clean the data, or leave such samples out, before the model sees them; `nanhunt check FILE` lists them."
)


def _within(labels: torch.Tensor, classes: int) -> bool:
    kept = labels[labels != -100]
    return not kept.numel() or (int(kept.min()) >= 0 and int(kept.max()) < classes)


def _place(item: Observation) -> tuple[Any, int, Any] | None:
    where = item.where
    return (where.code, where.instruction, where.module) if isinstance(where, Entry) else where


def _site(item: Observation) -> Site | None:
    place = _place(item)
    return resolve(place[0], place[1]) if place else None


def _module(item: Observation) -> str:
    place = _place(item)
    return module_path(place[2]) if place else ""


def _chain(roots: Sequence[Observation], guilty: Sequence[Observation]) -> tuple[Link, ...]:
    """The first few lines the bad values went through after the culprits, each with what it made of them."""
    blamed = {id(item) for item in guilty}
    later = sorted(
        {id(item): item for root in roots for item in ancestors(root)}.values(), key=lambda one: one.order
    )
    lines: dict[Site, Observation] = {}
    for item in later:
        site = _site(item)
        if site is None or id(item) in blamed or item.out.finite or item.order < guilty[0].order:
            continue
        if site not in lines or (item.out.nan and not lines[site].out.nan):
            lines[site] = item
    links = [Link(_called(item), site, item.out.kind) for site, item in lines.items()]
    blamed_lines = {_site(item) for item in guilty}
    return tuple([link for link in links if link.site not in blamed_lines][:MAX_LINKS])


def _called(item: Observation) -> str:
    return operation(item.where.func) if isinstance(item.where, Entry) else plain(item.op)


def _terms(evidence: Evidence, names: Names) -> tuple[Term, ...]:
    """The summands of a scalar loss, with their values, where the script has variables for them."""
    if len(evidence.roots) != 1 or evidence.gradients or evidence.frame is None:
        return ()
    loss = evidence.roots[0][0]
    summands = _summands(loss.grad_fn)
    if len(summands) < 2:
        return ()
    variables = _scalars(evidence.frame)
    terms = [
        (name, value) for name, value in variables.items() if value is not loss and value.grad_fn in summands
    ]
    return tuple(Term(name, value.item()) for name, value in terms) if len(terms) > 1 else ()


def _summands(node: Any, depth: int = 8) -> set[Any]:
    """Nodes whose scalar results are added up (perhaps scaled) to the loss."""
    if node is None or depth == 0:
        return set()
    found = {node}
    if node.name().startswith(("AddBackward", "SubBackward", "MulBackward", "DivBackward")):
        for below, _ in node.next_functions:
            found |= _summands(below, depth - 1)
    return found


def _scalars(frame: FrameType | None) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for variables in scopes(frame):
        for name, value in variables.items():
            for n, tensor in enumerate(
                tensors_in(value) if isinstance(value, dict | list | tuple) else [value]
            ):
                if isinstance(tensor, torch.Tensor) and tensor.numel() == 1 and tensor.grad_fn is not None:
                    found.setdefault(name if tensor is value else f"{name}[{n}]", tensor)
    return found


def _first_bad(
    evidence: Evidence, names: Names, look: Repetition | None, roots: Sequence[Observation]
) -> tuple[str, ...]:
    """Names of parameters with a bad gradient; backward reaches the last layers first, so those lead."""
    if look is None:
        return tuple(names.of(leaf) for leaf in evidence.gradients)
    order: dict[int, int] = {}
    for slot, copy in look.inputs.items():
        seen = look.observer.of(copy.grad) if copy.grad is not None else None
        original = slot.tensor
        if seen is not None and original is not None:
            order[id(original)] = seen.order
    ranked = sorted(evidence.gradients, key=lambda leaf: order.get(id(leaf), 2**62))
    return tuple(names.of(leaf) for leaf in ranked)


def _from_graph(evidence: Evidence, tape: Tape, names: Names, reason: str) -> Solved:
    """What can be said without a repetition."""
    findings = (
        [] if evidence.gradients else [item for root, _ in evidence.roots for item in autopsy(root, tape)]
    )
    guilty = tuple(_found_culprit(item) for item in findings if item.entry is not None)
    certain = bool(guilty) and all(item.certain for item in findings)
    solved = unexplained(evidence, names, f"the step could not be repeated: {reason}")
    found_by = FoundBy.GRAPH if certain else FoundBy.NARROWED if guilty else FoundBy.NOTICED
    incident = replace(solved.incident, culprits=guilty, terms=_terms(evidence, names), found_by=found_by)
    return Solved(incident, Exhibits())


def unexplained(evidence: Evidence, names: Names, note: str) -> Solved:
    """An incident of which only the noticing is known."""
    incident = Incident(
        step=evidence.step,
        what=evidence.what,
        noticed=evidence.noticed,
        culprits=(),
        chain=(),
        terms=(),
        bad_gradients=tuple(names.of(leaf) for leaf in evidence.gradients),
        parameters=evidence.parameters,
        found_by=FoundBy.NOTICED,
        notes=(note,),
    )
    return Solved(incident, Exhibits())


def _found_culprit(item: Finding) -> Culprit:
    assert item.entry is not None
    inputs = tuple(numbers(tensor) for tensor in item.inputs)
    signs = Signs.of(item.out)
    seen = Observation(0, _node_op(item.node), item.entry, None, item.out, signs, False, inputs)
    cause = cause_of(seen, frozenset())
    return Culprit(
        operation=operation(item.entry.func),
        phase=Phase.FORWARD,
        site=resolve(item.entry.code, item.entry.instruction),
        module=module_path(item.entry.module),
        detail="",
        out=seen.out,
        inputs=inputs,
        reason=cause.reason,
        rule=cause.rule,
        name=cause.name,
        fix=cause.fix,
    )


def _node_op(node: Any) -> str:
    """The operation of a node named like ExpBackward0."""
    name: str = node.name()
    return name.partition("Backward")[0].lower()
