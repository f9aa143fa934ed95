"""From "this step is bad" to an Incident: the looks are tried in turn, and the report says which one found it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

import torch

from .autopsy import Finding, autopsy
from .causes import cause_of
from .causes.pattern import Cause
from .incident import Culprit, FoundBy, Incident, Link, Phase, Term
from .living import living_part
from .loaded import Loaded
from .names import Names, module_path, operation, plain
from .numbers import Signs, checkable, finite, numbers
from .observer import Observation, Observer, ancestors, culprits
from .ranks import world_size
from .recorder import Opaque, Recorder
from .repair.mend import Failing
from .repair.regions import opened
from .scene import Scene, diverging
from .second_look import CameOutFinite, CannotRepeat, Repetition, repeat
from .site import Site, resolve
from .step_graph import StepGraph
from .story import Exhibits, Story, own_site, site_of
from .tape import Entry, Slot, Tape
from .terms import terms_of

_HANDED_ON = "what it was given is no longer in memory: it may only have handed on what was bad before"
_EVERY_OP = "Run the script once more with --every-op: each operation is then looked at as it runs."
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
    losses: Sequence[float] = ()
    """Of the steps before, oldest first."""
    known: Mapping[int, str] = field(default_factory=dict)
    """Names of tensors by id, where they come from a file."""
    loaded: Loaded | None = None
    """The files that the script has loaded."""


@dataclass
class Solved:
    """An incident, and the tensors from which capture and proof are made."""

    incident: Incident
    exhibits: Exhibits
    failing: Failing | None = None
    """The step as it can be repeated; None where it cannot."""
    gradients: Sequence[torch.Tensor] = ()
    """Leaves whose gradients were bad, though the loss was not."""


def investigate(evidence: Evidence, recorder: Recorder, live: Observer | None) -> Solved:
    """Find what made the step bad."""
    names = Names(recorder.roots.values(), evidence.frame)
    names.by_id.update(evidence.known)
    tape, notes = recorder.tape, list[str]()
    try:
        look, roots, found_by = _look(evidence, tape, live)
    except CannotRepeat as reason:
        if isinstance(reason, CameOutFinite) and evidence.gradients and world_size() > 1:
            return _handed_on(evidence, names, reason.gradients)
        living = _look_at_the_living(evidence, tape)
        if living is None:
            return _from_graph(evidence, tape, names, str(reason))
        tape, look, roots = living
        found_by = FoundBy.REPETITION
        notes = [
            f"the step could not be repeated: {reason}; what follows from results that are still in memory, such as "
            "the model's output, was"
        ]
    guilty = culprits(roots)[:MAX_CULPRITS]
    if look is not None and any(item.node and _in_region(item) for item in guilty):
        # The graph knows the region as one call: its calls are put in its place, to tell which of them it was.
        with contextlib.suppress(CannotRepeat):
            inside = opened(tape, [slot for slot, _ in _found(evidence, tape)])
            if inside is not None:
                look, roots, found_by = _look(evidence, inside.tape, None)
                tape, guilty = inside.tape, culprits(roots)[:MAX_CULPRITS]
    if not evidence.gradients and found_by is FoundBy.REPETITION and _confirmed(evidence, tape, guilty):
        found_by = FoundBy.GRAPH
    story = Story(names, tape, look, evidence.losses, evidence.loaded)
    incident = Incident(
        step=evidence.step,
        what=evidence.what,
        noticed=evidence.noticed,
        culprits=tuple(story.culprit(item) for item in guilty),
        chain=_chain(roots, guilty),
        terms=_terms(evidence),
        bad_gradients=_first_bad(evidence, names, look, roots),
        parameters=evidence.parameters,
        found_by=found_by,
        notes=(*_notes(look, evidence.losses), *notes),
    )
    failing = Failing(tape, _found(evidence, tape), names, evidence.losses, look, guilty)
    return Solved(incident, story.exhibits(guilty), failing, evidence.gradients)


def _in_region(item: Observation) -> bool:
    return isinstance(item.where, Entry) and isinstance(item.where.func, Opaque) and item.where.func.compiled


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
    found = _found(evidence, tape)
    if len(found) < len(evidence.slots) + len(evidence.roots):
        raise CannotRepeat("the loss was not made by recorded operations")
    look = repeat(tape, found, backward=bool(evidence.gradients))
    if evidence.gradients:
        bad = look.bad_gradients()
    else:
        bad = [look.values[slot] for slot, _ in found if _bad(look.values[slot])]
    known = [item for item in map(look.observer.of, bad) if item is not None]
    if not known:
        raise CameOutFinite(len(look.gradients()))
    return look, known, FoundBy.REPETITION


def _look_at_the_living(
    evidence: Evidence, tape: Tape
) -> tuple[Tape, Repetition | None, list[Observation]] | None:
    """What is left of the step repeated, if that shows where it went bad."""
    if not evidence.roots or evidence.gradients:
        return None
    slots = [slot for slot, _ in _found(evidence, tape)]
    for least in (False, True):
        part = living_part(tape, slots, least=least)
        with contextlib.suppress(CannotRepeat):
            if part is not None:
                look, roots, _ = _look(evidence, part, None)
                return part, look, roots
    return None


def _found(evidence: Evidence, tape: Tape) -> list[tuple[Slot, torch.Tensor | None]]:
    """What backward was called on, as the tape knows it."""
    roots: list[tuple[Slot | None, torch.Tensor | None]] = [(slot, None) for slot in evidence.slots]
    roots += [(tape.find(tensor), seed) for tensor, seed in evidence.roots]
    return [(slot, seed) for slot, seed in roots if slot is not None]


def _bad(tensor: torch.Tensor) -> bool:
    return checkable(tensor) and not finite(tensor)


def _confirmed(evidence: Evidence, tape: Tape, guilty: Sequence[Observation]) -> bool:
    """Whether the failing step's own graph shows the same operations going bad from finite inputs."""
    seen = [finding for root, _ in evidence.roots for finding in autopsy(root, tape)]
    shown = {id(finding.entry) for finding in seen if finding.certain and finding.entry is not None}
    return bool(guilty) and all(id(item.where) in shown for item in guilty)


def _notes(look: Repetition | None, losses: Sequence[float]) -> tuple[str, ...]:
    notes = []
    if diverging(losses):
        known = ", ".join(f"{loss:.3g}" for loss in losses)
        notes.append(f"the loss was {known} in the {len(losses)} steps before: it was diverging")
    if look is not None and look.changed_inputs:
        several = "1 input was" if look.changed_inputs == 1 else f"{look.changed_inputs} inputs were"
        notes.append(f"{several} written to during the step: the numbers repeated may differ")
    return tuple(notes)


def _chain(roots: Sequence[Observation], guilty: Sequence[Observation]) -> tuple[Link, ...]:
    """The first few lines the bad values went through after the culprits, each with what it made of them."""
    blamed = {id(item) for item in guilty}
    later = sorted(
        {id(item): item for root in roots for item in ancestors(root)}.values(), key=lambda one: one.order
    )
    lines: dict[Site, Observation] = {}
    for item in later:
        site = site_of(item)
        if site is None or id(item) in blamed or item.out.finite or item.order < guilty[0].order:
            continue
        if site not in lines or (item.out.nan and not lines[site].out.nan):
            lines[site] = item
    links = [Link(_called(item), site, item.out.kind) for site, item in lines.items()]
    blamed_lines = {site_of(item) for item in guilty}
    return tuple([link for link in links if link.site not in blamed_lines][:MAX_LINKS])


def _called(item: Observation) -> str:
    return operation(item.where.func) if isinstance(item.where, Entry) else plain(item.op)


def _terms(evidence: Evidence) -> tuple[Term, ...]:
    if len(evidence.roots) != 1 or evidence.gradients or evidence.frame is None:
        return ()
    return terms_of(evidence.roots[0][0], evidence.frame)


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
    for leaf, grad in look.beside.items():
        seen = look.observer.of(grad)
        if seen is not None:
            order[id(leaf)] = seen.order
    ranked = sorted(evidence.gradients, key=lambda leaf: order.get(id(leaf), 2**62))
    return tuple(names.of(leaf) for leaf in ranked)


def _from_graph(evidence: Evidence, tape: Tape, names: Names, reason: str) -> Solved:
    """What can be said without a repetition."""
    findings = (
        [] if evidence.gradients else [item for root, _ in evidence.roots for item in autopsy(root, tape)]
    )
    graph = StepGraph(tape.entries)
    guilty = tuple(_found_culprit(item, graph) for item in findings if item.entry is not None)
    certain = bool(guilty) and all(item.certain for item in findings)
    solved = unexplained(evidence, names, f"the step could not be repeated: {reason}")
    found_by = FoundBy.GRAPH if certain else FoundBy.NARROWED if guilty else FoundBy.NOTICED
    incident = replace(solved.incident, culprits=guilty, terms=_terms(evidence), found_by=found_by)
    return Solved(incident, Exhibits())


def _handed_on(evidence: Evidence, names: Names, gradients: int) -> Solved:
    """The step of one rank is sound: its gradients went bad when those of the ranks were added up."""
    solved = unexplained(evidence, names, "")
    alone = (
        f"repeated on this rank alone, {gradients} of {gradients} gradients are finite: another rank's came in by the "
        "all-reduce"
    )
    incident = replace(solved.incident, not_code=alone, found_by=FoundBy.REDUCED, notes=())
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


def _found_culprit(item: Finding, graph: StepGraph) -> Culprit:
    assert item.entry is not None
    inputs = tuple(numbers(tensor) for tensor in item.inputs)
    signs = Signs.of(item.out)
    seen = Observation(0, _node_op(item.node), item.entry, None, item.out, signs, False, inputs)
    cause = cause_of(Scene(seen, item.entry, graph))
    if isinstance(item.entry.func, Opaque) and not item.certain:
        cause = Cause(None, "not-known", _HANDED_ON, _EVERY_OP)
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
        own=own_site(item.entry),
    )


def _node_op(node: Any) -> str:
    """The operation of a node named like ExpBackward0."""
    name: str = node.name()
    return name.partition("Backward")[0].lower()
