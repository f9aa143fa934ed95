"""The tape: what was called in this step and on which tensors, without keeping those tensors alive.

An entry names its tensors by slots. A slot holds a weak reference; only the step's inputs (what no entry made:
parameters, the batch) are held until the tape is cut, and of those no more than a few MiB that nobody else owns.
From inputs and random state the step can be repeated later, whatever Python did in between.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, NamedTuple

import torch

MAX_ENTRIES = 20_000
"""A loop that never calls backward (inference) must not grow: the tape is cut there."""
MAX_HELD_BYTES = 8 * 2**20
"""Of inputs that are not parameters; beyond it they are remembered weakly (a batch lives on in its variable)."""
sequence_number: Callable[[], int] = torch._C._autograd._get_sequence_nr
"""Of the next autograd node on this thread. It tells which call made which node without touching the node."""

Module = tuple[torch.nn.Module, Any]
"""A running module and the one that called it, outwards to None."""


_ATOMS = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device, torch.Size, slice})


class Slot:
    """One tensor object on the tape."""

    __slots__ = ("__weakref__", "held", "ref", "version")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.ref = weakref.ref(tensor)
        self.held: torch.Tensor | None = None
        self.version = -1

    @property
    def tensor(self) -> torch.Tensor | None:
        """The tensor itself, if it is still there."""
        return self.held if self.held is not None else self.ref()


class Entry(NamedTuple):
    """One call of a torch function."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    """As passed, with a Slot for each tensor."""
    kwargs: dict[str, Any]
    out: Any
    """A Slot, a tuple of Slots and None, or None (the call wrote into an argument)."""
    code: CodeType
    instruction: int
    module: Module | None
    grad: bool
    """Whether gradients were recorded."""
    autocast: tuple[tuple[str, torch.dtype], ...]
    """Device types under autocast, with its dtype."""
    number: int
    """The autograd sequence number after the call: its nodes have smaller ones, those of later calls have not."""


class Tape:
    """The entries since the last cut, and the slots their tensors are known by."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.slots: dict[int, Slot] = {}
        self.inputs: list[Slot] = []
        """Slots no entry made, in order of first use."""
        self.held_bytes = 0
        self.random_state: RandomState | None = None
        self.first_number = 0
        """Autograd nodes below it are older than the tape."""
        self.cut_short = False
        """Whether entries of this very step were dropped because there were too many."""

    def cut(self) -> None:
        """Forget everything: the step is over and was healthy."""
        for slot in self.inputs:
            slot.held = None
        self.entries.clear()
        self.slots.clear()
        self.inputs.clear()
        self.held_bytes = 0
        self.random_state = None
        self.first_number = sequence_number()
        self.cut_short = False

    def slot(self, tensor: torch.Tensor) -> Slot:
        """The slot of a tensor passed to a call; a new input if no entry made it."""
        slot = self.slots.get(id(tensor))
        # An id is reused once its tensor is gone, so the slot must still refer to this very object.
        if slot is not None and slot.ref() is tensor:
            return slot
        slot = self.slots[id(tensor)] = Slot(tensor)
        self.inputs.append(slot)
        self._hold(slot, tensor)
        return slot

    def _hold(self, slot: Slot, tensor: torch.Tensor) -> None:
        slot.version = 0 if tensor.is_inference() else tensor._version
        if isinstance(tensor, torch.nn.Parameter):
            slot.held = tensor
            return
        size = tensor.numel() * tensor.element_size() if tensor.layout is torch.strided else MAX_HELD_BYTES
        if self.held_bytes + size <= MAX_HELD_BYTES:
            slot.held = tensor
            self.held_bytes += size

    def made(self, tensor: torch.Tensor) -> Slot:
        """The slot of a tensor a call returned; an in-place call returns one that has a slot already."""
        slot = self.slots.get(id(tensor))
        if slot is not None and slot.ref() is tensor:
            return slot
        slot = self.slots[id(tensor)] = Slot(tensor)
        return slot

    def symbols(self, value: Any) -> Any:
        """The argument with slots in place of tensors, inside lists, tuples and dicts too."""
        kind = type(value)
        if kind in _ATOMS:
            return value
        if isinstance(value, torch.Tensor):
            return self.slot(value)
        if kind is tuple or kind is list:
            return kind([self.symbols(item) for item in value])
        if kind is dict:
            return {key: self.symbols(item) for key, item in value.items()}
        return value

    def entry_of(self, node: Any) -> Entry | None:
        """The call that made an autograd node; None for a node older than the tape."""
        number = node._sequence_nr()
        if number < self.first_number or not self.entries or number >= self.entries[-1].number:
            return None
        return self.entries[bisect_right(self.entries, number, key=lambda entry: entry.number)]

    def find(self, tensor: torch.Tensor) -> Slot | None:
        """The slot of a tensor, if the tape has seen it."""
        slot = self.slots.get(id(tensor))
        return slot if slot is not None and slot.ref() is tensor else None


class RandomState:
    """The generators' states, taken and put back. Reading them does not synchronise a GPU."""

    def __init__(self) -> None:
        self.cpu = torch.random.get_rng_state()
        started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self.cuda = torch.cuda.get_rng_state_all() if started else []

    def restore(self) -> None:
        """Continue every generator from here."""
        torch.random.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


def slots_in(value: Any) -> Iterator[Slot]:
    """Every slot in an entry's args, kwargs or out."""
    if isinstance(value, Slot):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from slots_in(item)
    elif isinstance(value, dict):
        yield from slots_in(tuple(value.values()))
