"""The tape: what was called in this step and on which tensors, without keeping those tensors alive.

An entry names its tensors by slots. A slot holds a weak reference; only the step's inputs (what no entry made:
parameters, the batch) are held until the tape is cut, and of those no more than a few MiB that nobody else owns.
From inputs and random state the step can be repeated later, whatever Python did in between. The step is what feeds
the loss: the slice of the tape that ``Tape.slice`` finds, not the evaluation or initialisation that came before it.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from .site import Line

MAX_ENTRIES = 20_000
"""A loop that never calls backward (inference) must not grow: what feeds no living tensor is dropped there."""
MAX_STATES = 32
"""Random states remembered beside the first, 5 kB each on the CPU."""
MAX_HELD_BYTES = 8 * 2**20
"""Of inputs that are not parameters; beyond it they are remembered weakly (a batch lives on in its variable)."""
sequence_number: Callable[[], int] = torch._C._autograd._get_sequence_nr
"""Of the next autograd node on this thread. It tells which call made which node without touching the node."""

Site = tuple[CodeType, int, Line | None]
"""Where a call is: code, instruction, and the user's own line where that is in an installed package."""
Module = tuple[torch.nn.Module, Any]
"""A running module and the one that called it, outwards to None."""


# The names below are looked up in every call that is recorded: a global is found faster than an attribute.
_Tensor = torch.Tensor
_Parameter = torch.nn.Parameter
_grad_enabled = torch.is_grad_enabled
_storage: Callable[[torch.Tensor], int] = torch._C._storage_id  # type: ignore[attr-defined]
_NO_KWARGS: dict[str, Any] = {}
DRAWS, FRESH = 1, 2
"""What ``Tape.note`` is told of a call: it takes random numbers; its result is a new tensor in memory of its own."""
_UNCOUNTED = ("__set__", "map_", "apply_")
"""Names of calls that write without a new version."""
_ATOMS = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device, torch.Size, slice})


class Slot(weakref.ref[torch.Tensor]):
    """One tensor object on the tape: a reference to it, which is called for the tensor (None once that is gone).

    It is a weak reference rather than to have one, and is made by ``slot_of`` rather than by an ``__init__``, since
    one is made in every call.
    """

    __slots__ = ("held", "memory", "version")
    # As an object, not as what it refers to: tensors are compared value by value.
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__
    held: torch.Tensor | None
    version: int
    """Of the tensor when the tape last saw it written."""
    memory: int
    """Which storage it lies in: views of one tensor share it. Below 0 while nothing but this tensor can lie there."""

    @property
    def tensor(self) -> torch.Tensor | None:
        """The tensor itself, if it is still there."""
        return self.held if self.held is not None else self()


def slot_of(tensor: torch.Tensor) -> Slot:
    """A new slot of a tensor."""
    slot = Slot(tensor)
    slot.held = None
    try:
        slot.version = tensor._version
        slot.memory = _storage(tensor)
    except Exception:
        slot.version = version_of(tensor)
        slot.memory = _memory(tensor)
    return slot


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
    order: int = 0
    """Position on the tape, counted from the last cut."""
    draws: bool = False
    """Whether it takes random numbers."""
    own: tuple[CodeType, int] | None = None
    """Where the call is in an installed package: the innermost line that is the user's own."""
    discarded: bool = False
    """In a slice: whether it is there for its random numbers only, so that what it writes is to be thrown away."""

    @property
    def given(self) -> Iterator[Slot]:
        """Slots of everything passed to it."""
        return slots_in((self.args, self.kwargs))

    @property
    def written(self) -> set[Slot]:
        """Slots of the arguments it wrote into: those it returned, or the first of an assignment."""
        if getattr(self.func, "__name__", "") in ("__setitem__", "__set__"):
            return set(slots_in(self.args[:1]))
        return (set(slots_in(self.out)) & set(self.given)) | self.statistics

    @property
    def statistics(self) -> set[Slot]:
        """Slots of the running statistics that a normalisation in training updates, without a new version."""
        if getattr(self.func, "__name__", "") not in ("batch_norm", "instance_norm"):
            return set()
        flags = ("training", "use_input_stats")
        training = next(
            (self.kwargs[flag] for flag in flags if flag in self.kwargs), self.args[5:6] == (True,)
        )
        named = (self.kwargs.get("running_mean"), self.kwargs.get("running_var"))
        return set(slots_in((self.args[1:3], named))) if training else set()


Note = tuple[
    Callable[..., Any],
    list[Any],
    dict[str, Any],
    Any,
    CodeType,
    int,
    Module | None,
    bool,
    tuple[tuple[str, torch.dtype], ...],
    int,
    int,
    Line | None,
]
"""What is written of a call while it runs: an ``Entry`` up to ``number``, then what it is and ``own``."""


def _entry(note: Note, order: int) -> Entry:
    func, given, kwargs, out, code, instruction, module, grad, autocast, number, is_, own = note
    draws = bool(is_ & DRAWS)
    args = tuple(given)
    return Entry(
        func, args, kwargs, out, code, instruction, module, grad, autocast, number, order, draws, own
    )


class Tape:
    """The entries since the last cut, and the slots their tensors are known by."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._notes: list[Note] = []
        """Entries that nobody has asked for yet, as ``Note`` has them: in most steps nobody does."""
        self.slots: dict[int, Slot] = {}
        self.changed: dict[Slot, StorageWeakRef | None] = {}
        """Those that a call returned with other numbers than they had: float() may return its argument as it is.

        While their storage is referred to, no later one gets its id: what was written there is not taken for a
        write to an input that came after.
        """
        self.inputs: list[Slot] = []
        """Slots no entry made, in order of first use."""
        self.first_use: dict[Slot, int] = {}
        """Of each of these the position of the first call that was given it."""
        self.modules: dict[int, torch.nn.Module] = {}
        """By id: modules that ran as one call, with parameters that no entry was given."""
        self.held_bytes = 0
        self.random_state: RandomState | None = None
        self.states: deque[tuple[int, RandomState]] = deque(maxlen=MAX_STATES)
        """Later random states, each with the position it was read at."""
        self.drawn = False
        """Whether random numbers were taken since the last of them."""
        self.count = 0
        """Entries since the last cut, dropped ones too."""
        self.autocast = autocast_state()
        """Device types under autocast on this thread, with its dtype."""
        self.full = MAX_ENTRIES
        """The count at which there are too many."""
        self.first_number = 0
        """Autograd nodes below it are older than the tape."""
        self.cut_short = False
        """Whether entries of this very step were dropped because there were too many."""
        self.origins: dict[int, tuple[Slot, Entry]] | None = None
        """By id: tensors that lived on when the tape was first cut (data, buffers), and the call that made each."""
        self.unnoted = False
        """Whether a call could not be noted, so that the step cannot be repeated."""
        self.sliced = False
        """Whether the entries are one step and nothing else, its inputs as they were: it comes from a file."""

    @property
    def entries(self) -> list[Entry]:
        """The calls since the last cut, in order."""
        if self._notes:
            first = self.count - len(self._notes)
            self._entries += map(_entry, self._notes, range(first, self.count))
            self._notes.clear()
        return self._entries

    @entries.setter
    def entries(self, entries: list[Entry]) -> None:
        self._entries = entries
        self._notes.clear()

    def last(self, count: int) -> list[Entry]:
        """The last calls, in order; the others are left as they were noted."""
        if len(self._notes) < count:
            return self.entries[-count:]
        return list(map(_entry, self._notes[-count:], range(self.count - count, self.count)))

    def cut(self) -> None:
        """Forget everything: the step is over and was healthy."""
        if self.origins is None and (self._notes or self._entries):
            self.origins = dict(self._made_and_alive())
        for slot in self.inputs:
            slot.held = None
        self._entries.clear()
        self._notes.clear()
        self.slots.clear()
        self.changed.clear()
        self.inputs.clear()
        self.first_use.clear()
        self.modules.clear()
        self.held_bytes = 0
        self.random_state = None
        self.states.clear()
        self.drawn = False
        self.count = 0
        self.full = MAX_ENTRIES
        self.first_number = sequence_number()
        self.cut_short = self.unnoted = False

    def _made_and_alive(self) -> Iterator[tuple[int, tuple[Slot, Entry]]]:
        for entry in self.entries:
            for slot in {*slots_in(entry.out), *entry.written}:
                tensor = slot()
                if tensor is not None and tensor.grad_fn is None:
                    # Without what it was given: that may be a batch.
                    yield id(tensor), (slot, entry._replace(args=(), kwargs={}, module=None))

    def origin(self, tensor: torch.Tensor) -> Entry | None:
        """The call that wrote a tensor's numbers before the first step, if nothing has since."""
        slot, entry = (self.origins or {}).get(id(tensor), (None, None))
        known = slot is not None and slot() is tensor and tensor._version == slot.version
        return entry if known else None

    def append(self, entry: Entry) -> None:
        """Add a call that was an entry already."""
        self.entries.append(entry)
        self.count += 1
        self.drawn |= entry.draws

    def note(
        self,
        func: Callable[..., Any],
        args: Any,
        kwargs: Any,
        out: Any,
        code: CodeType,
        instruction: int,
        own: Line | None,
        module: Module | None,
        is_: int,
    ) -> None:
        """Add a call that has run; ``is_``: flags, as ``DRAWS`` and ``FRESH``.

        Written out instead of calling ``slot``, ``made`` and ``symbols`` for what is usual: it is asked for in every
        call of a torch function, and a call of Python costs as much as what these do.
        """
        known, given = self.slots.get, []
        made: Any
        for arg in args:
            kind = type(arg)
            if kind is _Tensor or kind is _Parameter:
                slot = known(id(arg))
                # Except for what makes a new tensor: from here on its memory may be shared.
                usual = slot is not None and slot() is arg and (slot.memory >= 0 or is_ & FRESH)
                given.append(slot if usual else self.slot(arg))
            else:
                given.append(arg if kind in _ATOMS else self.symbols(arg))
        named = _NO_KWARGS
        if kwargs:
            named = {key: one if type(one) in _ATOMS else self.symbols(one) for key, one in kwargs.items()}
        if type(out) is _Tensor and ((slot := known(id(out))) is None or slot() is not out):
            if is_ & FRESH:  # then this is known without asking
                made = self.slots[id(out)] = Slot(out)
                made.held, made.version, made.memory = None, 0, ~self.count
            else:
                made = self.slots[id(out)] = slot_of(out)
        else:
            made = self._made_all(out)
            if out is None and args and isinstance(args[0], _Tensor):
                self.made(args[0])  # an assignment: its numbers are new
        if self.count >= self.full:
            self._drop_dead(slots_in((given, named, made)))
        autocast = self.autocast
        grad, number = _grad_enabled(), sequence_number()
        self._notes.append(
            (func, given, named, made, code, instruction, module, grad, autocast, number, is_, own)
        )
        self.count += 1
        self.drawn = self.drawn or bool(is_ & DRAWS)

    def note_fresh(
        self,
        func: Callable[..., Any],
        args: Any,
        out: torch.Tensor,
        code: CodeType,
        instruction: int,
        own: Line | None,
        module: Module | None,
    ) -> None:
        """``note`` for most calls: ``FRESH``, with one tensor for a result and no argument given by name."""
        slots, given = self.slots, []
        for arg in args:
            kind = type(arg)
            if kind is _Tensor or kind is _Parameter:
                slot = slots.get(id(arg))
                given.append(slot if slot is not None and slot() is arg else self.slot(arg))
            else:
                given.append(arg if kind in _ATOMS else self.symbols(arg))
        made = slots[id(out)] = Slot(out)
        made.held, made.version, made.memory = None, 0, ~self.count
        if self.count >= self.full:
            self._drop_dead(slots_in((given, made)))
        self._notes.append(
            (
                func,
                given,
                _NO_KWARGS,
                made,
                code,
                instruction,
                module,
                _grad_enabled(),
                self.autocast,
                sequence_number(),
                FRESH,
                own,
            )
        )
        self.count += 1

    def _drop_dead(self, wanted: Iterable[Slot]) -> None:
        alive = {slot for slot in self.slots.values() if slot() is not None} | set(wanted)
        kept = self.slice(alive)
        self.read_state()
        if len(kept) > MAX_ENTRIES // 2:
            self.cut()
            self.cut_short = True
            return
        used = alive.union(*(set(entry.given) for entry in kept))
        self.entries[:] = kept
        self.full = self.count + MAX_ENTRIES - len(kept)
        self.slots = {key: slot for key, slot in self.slots.items() if slot in used}
        self.inputs = [slot for slot in self.inputs if slot in used]
        self.first_use = {slot: self.first_use[slot] for slot in self.inputs}
        self.changed = {slot: storage for slot, storage in self.changed.items() if slot in used}

    def read_state(self) -> None:
        """Remember the generators' states here, if numbers were drawn since: a slice may begin with them."""
        if self.drawn:
            self.states.append((self.count, RandomState()))
            self.drawn = False

    def state_before(self, position: int) -> tuple[int, RandomState | None]:
        """The last random state read at or before a position."""
        later = [item for item in self.states if item[0] <= position]
        return later[-1] if later else (0, self.random_state)

    def slice(self, roots: Iterable[Slot], settled: Collection[int] = ()) -> list[Entry]:
        """The entries that feed ``roots``, in order.

        ``settled``: memory of inputs whose present numbers are those the step has read, so that no earlier write to
        them is part of it. Where one of the entries draws random numbers, those that drew before it since a random
        state was read come too.
        """
        roots = list(roots)
        kept = self._feeding(roots, settled)
        drawing = [entry.order for entry in kept if entry.draws]
        if not drawing:
            return kept
        first, _ = self.state_before(drawing[0])
        needed = {entry.order for entry in kept}
        draws = [entry for entry in self.entries if entry.draws and first <= entry.order <= drawing[-1]]
        more = {entry.order for entry in draws} - needed
        wanted = [slot for entry in draws if entry.order in more for slot in entry.given]
        kept = self._feeding([*roots, *wanted], settled, more)
        return [entry._replace(discarded=entry.order in more) for entry in kept]

    def _feeding(
        self, roots: Iterable[Slot], settled: Collection[int], always: Collection[int] = ()
    ) -> list[Entry]:
        slots = set(roots)
        memory = {slot.memory for slot in slots}
        kept = []
        for entry in reversed(self.entries):
            given, written = set(entry.given), entry.written
            made = set(slots_in(entry.out)) - given
            writes = any(slot.memory in memory and slot.memory not in settled for slot in written)
            if writes or entry.order in always or not slots.isdisjoint(made):
                kept.append(entry)
                read = {slot.memory for slot in given}
                # Memory that is new here held another tensor before, if any.
                memory -= {slot.memory for slot in made} - read
                memory |= read
                slots |= given
        return kept[::-1]

    def slot(self, tensor: torch.Tensor) -> Slot:
        """The slot of a tensor passed to a call; a new input if no entry made it."""
        slot = self.slots.get(id(tensor))
        # An id is reused once its tensor is gone, so the slot must still refer to this very object.
        if slot is not None and slot() is tensor:
            if slot.memory < 0:
                slot.memory = _memory(tensor)  # from here on it may be shared
            return slot
        slot = self.slots[id(tensor)] = slot_of(tensor)
        self.inputs.append(slot)
        self.first_use[slot] = self.count
        self._hold(slot, tensor)
        return slot

    def _hold(self, slot: Slot, tensor: torch.Tensor) -> None:
        # The class first: isinstance asks Parameter's metaclass, which is slow.
        if type(tensor) is _Parameter or isinstance(tensor, _Parameter):
            slot.held = tensor
            return
        size = tensor.numel() * tensor.element_size() if tensor.layout is torch.strided else MAX_HELD_BYTES
        if self.held_bytes + size <= MAX_HELD_BYTES:
            slot.held = tensor
            self.held_bytes += size

    def made(self, tensor: torch.Tensor) -> Slot:
        """The slot of a tensor a call returned; an in-place call returns one that has a slot already."""
        slot = self.slots.get(id(tensor))
        if slot is None or slot() is not tensor:
            slot = self.slots[id(tensor)] = slot_of(tensor)
        else:
            # An input is seen only after its first call: there any version but the first may be that call's.
            before = slot.version if self.first_use.get(slot) != self.count else 0
            slot.version = version_of(tensor)
            if slot not in self.changed and (slot.version != before or tensor.is_inference()):
                self.changed[slot] = _storage_of(tensor)
        return slot

    def writes(self, entry: Entry) -> Iterator[Slot]:
        """Slots of the arguments whose numbers it changed: where that makes a new version, those that have one."""
        uncounted = getattr(entry.func, "__name__", "") in _UNCOUNTED
        certain = entry.written if uncounted else entry.statistics
        return (slot for slot in entry.written if slot in certain or slot in self.changed)

    def _made_all(self, out: Any) -> Any:
        if isinstance(out, tuple | list):
            return tuple(self._made_all(item) for item in out)
        return self.made(out) if isinstance(out, torch.Tensor) else None

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
        return slot if slot is not None and slot() is tensor else None


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


def version_of(tensor: torch.Tensor) -> int:
    """How often it was written to; 0 for an inference tensor, which does not count."""
    return 0 if tensor.is_inference() else tensor._version


def _memory(tensor: torch.Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except Exception:  # a layout or subclass without a storage of its own: it shares none
        return id(tensor)


def _storage_of(tensor: torch.Tensor) -> StorageWeakRef | None:
    try:
        return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
    except Exception:  # as in _memory
        return None


def slots_in(value: Any) -> Iterator[Slot]:
    """Every slot in an entry's args, kwargs or out."""
    if isinstance(value, Slot):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from slots_in(item)
    elif isinstance(value, dict):
        yield from slots_in(tuple(value.values()))


def autocast_state() -> tuple[tuple[str, torch.dtype], ...]:
    """Device types under autocast on this thread, with its dtype."""
    return tuple(
        (kind, torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)
    )
