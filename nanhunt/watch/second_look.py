"""The second look: a step is repeated from its tape and random state, and every number is looked at this time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch

from .numbers import checkable, finite, in_memory
from .observer import Observer, live_caller
from .recorder import Opaque
from .tape import Entry, RandomState, Slot, Tape, sequence_number


class CannotRepeat(Exception):  # noqa: N818 - a condition to report, not an error of the user's
    """Why this step cannot be repeated; its text completes "the step could not be repeated: "."""


@dataclass
class Repetition:
    """One step, repeated."""

    observer: Observer
    again: Tape
    """The entries with the sequence numbers they have this time."""
    values: dict[Slot, torch.Tensor] = field(default_factory=dict)
    """What each slot held in the repetition; inputs are copies."""
    inputs: dict[Slot, torch.Tensor] = field(default_factory=dict)
    changed_inputs: int = 0
    """Inputs that were written to after their first use, so that the repetition may differ."""

    def bad_gradients(self) -> list[Slot]:
        """Inputs whose gradient is not finite."""
        return [
            slot
            for slot, copy in self.inputs.items()
            if copy.grad is not None and checkable(copy.grad) and not finite(copy.grad)
        ]


def repeat(tape: Tape, roots: Sequence[tuple[Slot, torch.Tensor | None]], *, backward: bool) -> Repetition:
    """Run the tape again under an ``Observer``; with ``backward``, from ``roots`` (slot, its gradient or None).

    Nothing of the script's changes: inputs are copied, the generators are put back afterwards.

    Raises:
        CannotRepeat: an input is gone, or a call failed this time.

    """
    if tape.cut_short:
        raise CannotRepeat("it made too many calls for the recorder to keep")
    if not tape.entries or tape.random_state is None:
        raise CannotRepeat("no operation of it was recorded")
    current: list[Entry | None] = [None]
    again = Tape()
    look = Repetition(_Alone(again.entry_of, where=lambda: _where(current[0])), again)
    again.first_number = sequence_number()
    with _random_state_kept(tape), _compiled_regions_open(tape):
        _copy_inputs(tape, look)
        try:
            _forward(tape.entries, look, current)
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


def _where(entry: Entry | None) -> Any:
    """The taped call; inside an opaque one the user's line that is running there, since this time it is seen."""
    return live_caller() if entry is not None and isinstance(entry.func, Opaque) else entry


@contextlib.contextmanager
def _random_state_kept(tape: Tape) -> Iterator[None]:
    now = RandomState()
    assert tape.random_state is not None
    tape.random_state.restore()
    try:
        yield
    finally:
        now.restore()


def _compiled_regions_open(tape: Tape) -> contextlib.AbstractContextManager[Any]:
    """Run compiled regions eagerly this time, so that what happens inside can be seen."""
    if any(isinstance(entry.func, Opaque) and entry.func.compiled for entry in tape.entries):
        stance: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
        return stance
    return contextlib.nullcontext()


def _copy_inputs(tape: Tape, look: Repetition) -> None:
    for slot in tape.inputs:
        tensor = slot.tensor
        if tensor is None:
            continue  # only a loss if something needs it
        if not in_memory(tensor):
            raise CannotRepeat("the memory of an input was freed meanwhile, as FSDP does")
        look.changed_inputs += not tensor.is_inference() and tensor._version != slot.version
        copy = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        look.values[slot] = look.inputs[slot] = copy
        if checkable(copy) and not finite(copy):
            kind = "parameter" if isinstance(tensor, torch.nn.Parameter) else "input"
            look.observer.given(copy, kind)


def _forward(entries: Sequence[Entry], look: Repetition, current: list[Entry | None]) -> None:
    for (grad, autocast), group in groupby(entries, key=lambda entry: (entry.grad, entry.autocast)):
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(grad))
            for device, dtype in autocast:
                stack.enter_context(torch.autocast(device, dtype=dtype))
            for entry in group:
                current[0] = entry
                _call(entry, look)


def _call(entry: Entry, look: Repetition) -> None:
    args, kwargs = _filled(entry.args, look), _filled(entry.kwargs, look)
    with look.observer:
        out = entry.func(*args, **kwargs)
    look.again.entries.append(entry._replace(number=sequence_number()))
    _keep(entry.out, out, look)


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
    with look.observer:
        torch.autograd.backward(tensors, [seed for _, seed in roots])
