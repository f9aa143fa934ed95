"""The second look: a step is repeated from its tape and random state, and every number is looked at this time."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch

from .names import operation
from .numbers import checkable, finite, in_memory
from .observer import Observer, live_caller
from .recorder import Opaque
from .step_graph import StepGraph
from .tape import Entry, RandomState, Slot, Tape, sequence_number, slots_in

Instead = Callable[[Callable[[Slot], torch.Tensor], tuple[Any, ...], dict[str, Any]], Any]
"""Stands for a taped call: given what a slot holds, and the call's own arguments."""


class CannotRepeat(Exception):  # noqa: N818 - a condition to report, not an error of the user's
    """Why this step cannot be repeated; its text completes "the step could not be repeated: "."""


class CameOutFinite(CannotRepeat):
    """The step went another way this time."""

    def __init__(self, gradients: int) -> None:
        super().__init__("repeated from the same inputs on this process alone, it came out finite")
        self.gradients = gradients
        """Inputs that had a gradient, all of them finite."""


@dataclass
class Repetition:
    """One step, repeated."""

    observer: Observer
    again: Tape
    """The entries with the sequence numbers they have this time."""
    entries: Sequence[Entry] = ()
    """What was repeated: the calls that feed the loss."""
    values: dict[Slot, torch.Tensor] = field(default_factory=dict)
    """What each slot held in the repetition; inputs are copies."""
    inputs: dict[Slot, torch.Tensor] = field(default_factory=dict)
    beside: dict[torch.Tensor, torch.Tensor] = field(default_factory=dict)
    """Leaves of the script's own that regions read beside what they are given -> the gradient they got this time."""
    changed_inputs: int = 0
    """Inputs that were written to after their first use, so that the repetition may differ."""

    def gradients(self) -> list[torch.Tensor]:
        """All that backward has left."""
        return [copy.grad for copy in self.inputs.values() if copy.grad is not None] + [*self.beside.values()]

    def bad_gradients(self) -> list[torch.Tensor]:
        """Those that are not finite."""
        return [grad for grad in self.gradients() if checkable(grad) and not finite(grad)]


def repeat(
    tape: Tape,
    roots: Sequence[tuple[Slot, torch.Tensor | None]],
    *,
    backward: bool,
    instead: Mapping[int, Instead] | None = None,
    wide: bool = False,
    given: Mapping[Slot, torch.Tensor] | None = None,
) -> Repetition:
    """Run what feeds ``roots`` again under an ``Observer``; with ``backward``, from them (slot, its gradient or None).

    ``instead``: by their order on the tape, calls that something else is to stand for. ``wide``: from the inputs in
    float64, for numbers nearer to exact arithmetic. ``given``: inputs with other numbers than they had.
    Nothing of the script's changes: inputs are copied, the generators are put back afterwards.

    Raises:
        CannotRepeat: an input is gone, or a call failed this time.

    """
    step = Step.of(tape, [slot for slot, _ in roots])
    entries = step.entries
    _refuse(tape, entries)
    current: list[Entry | None] = [None]
    again = Tape()
    look = Repetition(_Alone(again.entry_of, where=lambda: _where(current[0])), again, entries)
    look.observer.keeps_overwritten = True
    again.first_number = sequence_number()
    with _random_state_kept(tape, entries), _compiled_regions_open(entries):
        _copy_inputs(tape, look, step, given or {}, wide=wide)
        try:
            _forward(entries, look, current, (_widened(entries) if wide else {}) | dict(instead or {}))
            if backward:
                _backward(look, roots)
        except CannotRepeat:
            raise
        except Exception as error:
            raise CannotRepeat(f"{type(error).__name__}: {error}".splitlines()[0]) from error
    return look


class _Alone(Observer):  # type: ignore[no-untyped-call]
    """Refuses what needs other processes: they do not repeat the step, so it would wait for them for ever."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As an observer does, but for collectives."""
        if "c10d" in func.namespace:
            raise CannotRepeat("it exchanges numbers with other processes")
        return super().__torch_dispatch__(func, types, args, kwargs)


def _refuse(tape: Tape, entries: Sequence[Entry]) -> None:
    """Raise CannotRepeat where it is known beforehand."""
    if tape.unnoted:
        raise CannotRepeat("one of its calls could not be noted")
    if tape.cut_short and any(_computed(slot) for slot in _inputs_of(tape, entries)):
        raise CannotRepeat("it made too many calls for the recorder to keep")
    if not entries or tape.random_state is None:
        raise CannotRepeat("no operation of it was recorded")


def _computed(slot: Slot) -> bool:
    tensor = slot.tensor
    return tensor is not None and tensor.grad_fn is not None


def _inputs_of(tape: Tape, entries: Sequence[Entry]) -> list[Slot]:
    read = {slot for entry in entries for slot in entry.given}
    return [slot for slot in tape.inputs if slot in read]


@dataclass(frozen=True)
class Step:
    """The part of the tape that feeds the loss.

    An input that was only written to before the step has read it (initialised, loaded) is taken as it is now: those
    writes are not the step. Unless it is bad now; then the write that made it so is looked for.
    """

    entries: list[Entry]
    rewritten: frozenset[int]
    """Memory of inputs whose numbers of the beginning are lost: the entries write to them."""
    read_before: frozenset[int]
    """That of inputs which other entries read before."""
    statistics: frozenset[int]
    """Memory of running statistics that the entries update, and whose numbers do not matter to them."""

    @classmethod
    def of(cls, tape: Tape, roots: Sequence[Slot]) -> Step:
        """The step whose results are ``roots``."""
        if tape.sliced:
            return cls(list(tape.entries), frozenset(), frozenset(), _statistics(tape.entries))
        given = {slot.memory for slot in tape.inputs}
        returned = given & {slot.memory for entry in tape.entries for slot in entry.written}
        writes = [
            (entry, slot.memory)
            for entry in tape.entries
            for slot in tape.writes(entry)
            if slot.memory in given
        ]
        last = {memory: entry.order for entry, memory in writes}
        statistics = _statistics(tape.entries)
        bad = {slot.memory for slot in tape.inputs if slot.memory in last and _is_bad(slot.tensor)}
        bad -= statistics | {memory for memory in bad if _loaded(tape, [e for e, m in writes if m == memory])}
        entries = tape.slice(roots, returned - bad)
        if bad and any(slot.tensor is None for slot in _inputs_of(tape, entries)):
            bad = set()  # what made it so is gone
            entries = tape.slice(roots, returned)
        early = {
            slot.memory
            for entry in entries
            for slot in entry.given
            if entry.order < last.get(slot.memory, 0) and not _only_looks(entry, slot)
        }
        early -= statistics
        if early - bad:
            entries = tape.slice(roots, returned - bad - early)
        return cls(entries, frozenset(bad | early), frozenset(early), statistics)


def _statistics(entries: Sequence[Entry]) -> frozenset[int]:
    """Memory that nothing but normalisations in training read."""
    updated = {slot.memory for entry in entries for slot in entry.statistics}
    read = {slot.memory for entry in entries for slot in {*entry.given} - entry.statistics}
    return frozenset(updated - read)


def _loaded(tape: Tape, writes: Sequence[Entry]) -> bool:
    """Whether its numbers were last copied from elsewhere as they were, a checkpoint's; or moved, as half() does."""
    last = writes[-1]
    moved = operation(last.func) == "set"
    return moved or (operation(last.func) == "copy_" and set(slots_in(last.args[1:])) <= {*tape.inputs})


def _only_looks(entry: Entry, slot: Slot) -> bool:
    """Whether the call reads no numbers: it gives a view of the same memory."""
    return any(made.memory == slot.memory for made in slots_in(entry.out))


def _is_bad(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and checkable(tensor) and not finite(tensor)


def _where(entry: Entry | None) -> Any:
    """The taped call; inside an opaque one the user's line that is running there, since this time it is seen."""
    opaque = entry is not None and isinstance(entry.func, Opaque) and not entry.func.native
    return live_caller() if opaque else entry


@contextlib.contextmanager
def _random_state_kept(tape: Tape, entries: Sequence[Entry]) -> Iterator[None]:
    now = RandomState()
    first = next((entry.order for entry in entries if entry.draws), 0)
    _, before = tape.state_before(first)
    assert before is not None
    before.restore()
    try:
        yield
    finally:
        now.restore()


def _compiled_regions_open(entries: Sequence[Entry]) -> contextlib.AbstractContextManager[Any]:
    """Run compiled regions eagerly this time, so that what happens inside can be seen."""
    if any(isinstance(entry.func, Opaque) and entry.func.compiled for entry in entries):
        stance: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
        return stance
    return contextlib.nullcontext()


def _widened(entries: Sequence[Entry]) -> dict[int, Instead]:
    """Calls that make a tensor of nothing: the same numbers, in float64."""
    return {
        entry.order: functools.partial(_wide, entry.func)
        for entry in entries
        if not any(True for _ in entry.given)
    }


def _wide(func: Callable[..., Any], value: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out = func(*args, **kwargs)
    return out.double() if isinstance(out, torch.Tensor) and out.is_floating_point() else out


def _copy_inputs(
    tape: Tape, look: Repetition, step: Step, given: Mapping[Slot, torch.Tensor], *, wide: bool
) -> None:
    loaded = _copied_into_parameters(step.entries)
    for slot in _inputs_of(tape, step.entries):
        tensor = slot.tensor
        if tensor is None:
            continue  # only a loss if something needs it
        if not in_memory(tensor):
            raise CannotRepeat("the memory of an input was freed meanwhile, as FSDP does")
        unseen = _written_unseen(tape, slot, tensor)
        changed = slot.memory in step.rewritten or unseen
        look.changed_inputs += slot.memory in step.read_before or unseen
        copy = given.get(slot, tensor).detach().clone()
        copy = copy.double() if wide and copy.is_floating_point() else copy
        if _is_bad(copy):
            if changed or slot.memory in step.statistics:
                # What it held before nobody knows; but it went bad within the step, so it is not to blame.
                copy = copy.nan_to_num(0.0, 0.0, 0.0)
            else:
                weights = slot in loaded or isinstance(tensor, torch.nn.Parameter)
                kind = "parameter" if weights else "input"
                look.observer.given(copy, kind)
        look.values[slot] = look.inputs[slot] = copy.requires_grad_(tensor.requires_grad)


def _copied_into_parameters(entries: Sequence[Entry]) -> set[Slot]:
    """What the entries load: an infinity there is no mask."""
    graph = StepGraph(entries)
    copies = [entry for entry in entries if operation(entry.func) == "copy_" and len(entry.args) > 1]
    sources = [
        copy.args[1]
        for copy in copies
        if isinstance(getattr(copy.args[0], "tensor", None), torch.nn.Parameter)
    ]
    return {graph.source(slot) for slot in sources if isinstance(slot, Slot)}


def _written_unseen(tape: Tape, slot: Slot, tensor: torch.Tensor) -> bool:
    """Whether something wrote to it that is not on the tape."""
    if tensor.is_inference():
        return False
    seen = max((other.version for other in tape.slots.values() if other.memory == slot.memory), default=0)
    return tensor._version > max(seen, slot.version)


def _forward(
    entries: Sequence[Entry],
    look: Repetition,
    current: list[Entry | None],
    instead: Mapping[int, Instead],
) -> None:
    for (grad, autocast), group in groupby(entries, key=lambda entry: (entry.grad, entry.autocast)):
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(grad))
            for device, dtype in autocast:
                stack.enter_context(torch.autocast(device, dtype=dtype))
            for entry in group:
                current[0] = entry
                _call(entry, look, instead.get(entry.order))


def _call(entry: Entry, look: Repetition, instead: Instead | None) -> None:
    kept = {slot: look.values[slot] for slot in entry.written if slot in look.values}
    if entry.discarded:
        look.values.update({slot: tensor.clone() for slot, tensor in kept.items()})
    args, kwargs = _filled(entry.args, look), _filled(entry.kwargs, look)
    with look.observer:
        held = look.values.__getitem__
        out = entry.func(*args, **kwargs) if instead is None else instead(held, args, kwargs)
    look.again.entries.append(entry._replace(number=sequence_number()))
    _keep(entry.out, out, look)
    if entry.discarded:
        look.values.update(kept)


def _filled(value: Any, look: Repetition) -> Any:
    """The entry's argument with tensors in place of slots."""
    if isinstance(value, Slot):
        if value not in look.values:
            raise CannotRepeat("an input of it is no longer in memory")
        return look.values[value]
    if isinstance(value, tuple | list):
        return type(value)([_filled(item, look) for item in value])
    if isinstance(value, dict):
        return {key: _filled(item, look) for key, item in value.items()}
    return value


def _keep(slots: Any, out: Any, look: Repetition) -> None:
    if isinstance(slots, Slot) and isinstance(out, torch.Tensor):
        look.values[slots] = out
    elif isinstance(slots, tuple):
        for slot, item in zip(slots, out, strict=True):
            _keep(slot, item, look)


def _backward(look: Repetition, roots: Sequence[tuple[Slot, torch.Tensor | None]]) -> None:
    tensors = [look.values[slot] for slot, _ in roots if slot in look.values]
    if len(tensors) < len(roots):
        raise CannotRepeat("the loss was not made by recorded operations")
    with _kept_gradients(tensors, look), look.observer:
        torch.autograd.backward(tensors, [seed for _, seed in roots])


@contextlib.contextmanager
def _kept_gradients(roots: Sequence[torch.Tensor], look: Repetition) -> Iterator[None]:
    """Leave the gradients of the script's own parameters as they are: a compiled region reads no copies."""
    copies = {id(copy) for copy in look.inputs.values()}
    before = {leaf: leaf.grad for leaf in _leaves(roots) if id(leaf) not in copies}
    for leaf in before:
        leaf.grad = None
    try:
        yield
        look.beside = {leaf: leaf.grad for leaf in before if leaf.grad is not None}
    finally:
        for leaf, grad in before.items():
            leaf.grad = grad


def _leaves(roots: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """What backward accumulates gradients in."""
    waiting = [root.grad_fn for root in roots if root.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if hasattr(node, "variable"):
            yield node.variable
        below = {item for item, _ in node.next_functions if item is not None} - seen
        seen |= below
        waiting += below
