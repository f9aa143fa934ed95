"""Looks at every number: a dispatch mode that notes each operation whose result is not finite, and who fed it.

Used to repeat a failing step (``second_look``) and, with ``--every-op``, on the running script itself.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .numbers import Numbers, checkable, finite, numbers, tensors_in
from .site import caller
from .tape import METADATA_KEY, Entry, Module

_UNINITIALISED = (
    "aten::empty",
    "aten::new_empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::resize_",
)


_SWALLOW = frozenset({"div", "reciprocal", "exp", "sigmoid", "tanh", "_softmax", "softmax", "rsqrt", "pow"})
"""Operations that make a finite number of an infinity."""
_KEEP_ZEROS = frozenset(
    {"index", "gather", "clone", "_to_copy", "neg", "mul", "div", "index_select", "cat", "stack"}
)


@dataclass(eq=False)
class Observation:
    """One operation whose result holds NaN or an infinity."""

    order: int
    op: str
    """Without overload: "exp", "_softmax"."""
    where: Entry | tuple[Any, int, Module | None] | None
    """The taped call it belongs to; live: (code, instruction, module)."""
    node: str | None
    """Name of the autograd node, in backward."""
    out: Numbers
    inputs: tuple[Numbers, ...]
    tensors: tuple[torch.Tensor, ...] = ()
    """The inputs themselves, kept only where all of them were finite: they become the capture."""
    parents: list[Observation] = field(default_factory=list)
    scalars: tuple[Any, ...] = ()

    @property
    def born_here(self) -> bool:
        """Whether everything that went in was finite."""
        return not self.parents and all(item.finite for item in self.inputs)

    @property
    def only_infinite(self) -> bool:
        """Whether the result holds infinities of one sign and no NaN, as a mask does."""
        return not self.out.nan and not (self.out.posinf and self.out.neginf)

    @property
    def maybe_mask(self) -> bool:
        """Whether this may be an intended infinity: passed to the call as a constant, or given from outside."""
        constant = any(math.isinf(item) for item in self.scalars)
        return self.only_infinite and (constant or self.op == "input")


class Observer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Checks each operation's results with a sum, and remembers the bad ones by the memory they lie in."""

    def __init__(self, where: Callable[[], Any] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.where = where or live_caller
        self.by_memory: dict[int, tuple[torch.Tensor, Observation]] = {}
        """Storage address -> (the tensor, which keeps the address from being reused, its observation)."""
        self.count = 0
        self.suspended = False
        self.last_entry: Entry | None = None
        """In backward: of the last node that had one. A node inside a composite call has none of its own, and
        runs right after the call's last node."""

    def forget(self) -> None:
        """Drop what was noted: the step is over and was healthy."""
        self.by_memory.clear()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, then look at what came out."""
        out = func(*args, **(kwargs or {}))
        node = torch._C._current_autograd_node()
        if node is not None:
            self.last_entry = _metadata(node).get(METADATA_KEY, self.last_entry)
        if not self.suspended:
            for tensor in tensors_in(out):
                if checkable(tensor):
                    self._look(func, args, kwargs or {}, tensor)
        return out

    def _look(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: torch.Tensor) -> None:
        if not finite(out):
            self._note(func, args, kwargs, out)
        elif self.by_memory:
            self._swallowed(func, args, kwargs, out)

    def _swallowed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: torch.Tensor) -> None:
        """Note a finite result that an overflow has shaped: 2 / inf is 0, and log(0) later is not log's fault.

        Followed only through calls that keep a 0 a 0, not for ever.
        """
        name = func._schema.name.removeprefix("aten::")
        if not (name in _SWALLOW or name in _KEEP_ZEROS or _is_view(func)):
            return
        known = [self.of(item) for item in tensors_in([args, kwargs]) if checkable(item)]
        sources = [item for item in known if item is not None and not _legal(item)]
        if sources and not bool(out.all()):
            self._remember(func, out, (), sources, (), ())

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: torch.Tensor) -> None:
        if func._schema.name in _UNINITIALISED:
            return
        key = out.untyped_storage().data_ptr()
        given = [item for item in tensors_in([args, kwargs]) if checkable(item)]
        # An operation that works in place has overwritten its input; what it was is known if it was bad before.
        inputs = [item for item in given if item is not out]
        overwritten = self.by_memory.get(key) if any(item is out for item in given) else None
        stats = tuple(numbers(item) for item in inputs)
        parents = [self._source(item) for item, stat in zip(inputs, stats, strict=True) if not stat.finite]
        shaped = [self.of(item) for item, stat in zip(inputs, stats, strict=True) if stat.finite]
        parents += [item for item in shaped if item is not None and item.out.finite]
        if overwritten is not None:
            parents.append(overwritten[1])
        scalars = tuple(item for item in args if isinstance(item, int | float))
        self._remember(func, out, stats, parents, () if parents else tuple(inputs), scalars)

    def _remember(
        self,
        func: Any,
        out: torch.Tensor,
        inputs: tuple[Numbers, ...],
        parents: list[Observation],
        tensors: tuple[torch.Tensor, ...],
        scalars: tuple[Any, ...],
    ) -> None:
        node = torch._C._current_autograd_node()
        self.count += 1
        observation = Observation(
            order=self.count,
            op=func._schema.name.split("::")[-1],
            where=self._place(node),
            node=node.name() if node is not None else None,
            out=numbers(out),
            inputs=inputs,
            tensors=tensors,
            parents=parents,
            scalars=scalars,
        )
        self.by_memory[out.untyped_storage().data_ptr()] = (out, observation)

    def _place(self, node: Any) -> Any:
        if node is not None and not hasattr(node, "_forward_cls"):
            return self.last_entry
        # In forward; or in the backward of a custom Function, which is the user's code as well.
        return self.where() if node is None else live_caller()

    def _source(self, tensor: torch.Tensor) -> Observation:
        """Who made this bad tensor; nobody seen: it was bad when it came in."""
        known = self.by_memory.get(tensor.untyped_storage().data_ptr())
        if known is not None:
            return known[1]
        return self.given(tensor, "input")

    def given(self, tensor: torch.Tensor, kind: str) -> Observation:
        """Note a tensor that was bad before the first operation; ``kind`` is "input" or "parameter"."""
        self.count += 1
        found = Observation(self.count, kind, None, None, numbers(tensor), (), (tensor,))
        self.by_memory[tensor.untyped_storage().data_ptr()] = (tensor, found)
        return found

    def of(self, tensor: torch.Tensor) -> Observation | None:
        """The observation that left NaN or an infinity in this tensor's memory."""
        known = self.by_memory.get(tensor.untyped_storage().data_ptr())
        return known[1] if known is not None else None


def _metadata(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = node.metadata
    return found


def _is_view(func: Any) -> bool:
    return any(item.alias_info is not None and not item.alias_info.is_write for item in func._schema.returns)


def live_caller() -> tuple[Any, int, Module | None]:
    """(code, instruction, None) of the user's line that is running now."""
    code, instruction = caller(sys._getframe(1))
    return code, instruction, None


def ancestors(root: Observation) -> Iterator[Observation]:
    """The observation and all that fed it, each once."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        item = waiting.pop()
        if id(item) not in seen:
            seen.add(id(item))
            yield item
            waiting.extend(item.parents)


def culprits(roots: Sequence[Observation]) -> list[Observation]:
    """The operations to blame for the bad ``roots``, in the order they ran.

    Blamed is what made NaN or infinity from finite numbers. An infinity that masking brought in is legal until an
    operation turns it into something else; then that operation is blamed, not the mask.
    """
    found: dict[int, Observation] = {}
    for root in roots:
        for item in ancestors(root):
            converts = all(_legal(parent) for parent in item.parents) and not _same_infinity(item)
            if converts if item.parents else not item.maybe_mask:
                found[id(item)] = item
        if not found:  # nothing converted the infinity: the mask itself reached the loss
            found.update((id(item), item) for item in ancestors(root) if not item.parents)
    return sorted(found.values(), key=lambda item: item.order)


def _legal(item: Observation) -> bool:
    """Whether what this operation handed on is still a mask as it was brought in."""
    if item.parents:
        return item.only_infinite and _same_infinity(item) and all(_legal(parent) for parent in item.parents)
    return item.maybe_mask


def _same_infinity(item: Observation) -> bool:
    """Whether an operation only passed its parents' infinities on: no NaN, no new sign."""
    signs = {(bool(parent.out.posinf), bool(parent.out.neginf)) for parent in item.parents}
    return item.only_infinite and (bool(item.out.posinf), bool(item.out.neginf)) in signs
