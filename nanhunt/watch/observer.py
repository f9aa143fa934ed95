"""Looks at every number: a dispatch mode that notes each operation whose result is not finite, and who fed it.

Used to repeat a failing step (``second_look``) and, with ``--every-op``, on the running script itself.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .numbers import Numbers, Signs, address, checkable, finite, numbers, tensors_in
from .site import caller
from .tape import Entry, Module
from .unseen import hide

_UNINITIALISED = frozenset({"empty", "new_empty", "empty_like", "empty_strided", "resize_"})
_SWALLOW = frozenset({"div", "reciprocal", "exp", "sigmoid", "tanh", "_softmax", "softmax", "rsqrt", "pow"})
"""Operations that make a finite number of an infinity."""
_TURN = frozenset({"neg", "abs", "sub", "rsub", "mul", "div"})
"""Operations that may make inf of -inf without a fault: the mask of a distance, negated."""
_WRITES = frozenset({"index_put_", "fill_", "copy_", "masked_fill_", "masked_fill", "full", "index_fill_"})
_KEEP_ZEROS = frozenset(
    {
        "index",
        "gather",
        "clone",
        "_to_copy",
        "neg",
        "mul",
        "index_select",
        "cat",
        "stack",
        "min",
        "max",
        "amin",
    }
)


@dataclass(eq=False)
class Observation:
    """One operation whose result holds NaN or an infinity, or a 0 that an infinity has left."""

    order: int
    op: str
    """Without overload: "exp", "_softmax"; "input" and "parameter" for what was bad before the first operation."""
    where: Entry | tuple[Any, int, Module | None] | None
    """The taped call it belongs to; live: (code, instruction, module)."""
    node: str | None
    """Name of the autograd node, in backward."""
    result: torch.Tensor
    signs: Signs
    legal: bool
    """Whether this is an infinity brought in on purpose (a mask), or one handed on unchanged."""
    inputs: tuple[Numbers, ...] = ()
    tensors: tuple[torch.Tensor, ...] = ()
    """The inputs themselves, kept only where all of them were finite: they become the capture."""
    parents: list[Observation] = field(default_factory=list)
    scalars: tuple[Any, ...] = ()
    call: tuple[Any, tuple[Any, ...], dict[str, Any]] | None = None
    """The operation and what it was given; kept where the inputs are, and where masks were all that was bad in them."""

    @cached_property
    def out(self) -> Numbers:
        """The result, looked at closely. Worked out at once for what may be a fault, later for masks."""
        return numbers(self.result)


class Observer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Checks each operation's results with a sum, and remembers the bad ones by the memory they lie in."""

    def __init__(
        self, entry_of: Callable[[Any], Entry | None], where: Callable[[], Any] | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entry_of = entry_of
        """Which taped call made an autograd node."""
        self.where = where or live_caller
        self.by_memory: dict[int, Observation] = {}
        """Storage address -> what happened there last. An observation holds its tensor, so the address stays taken."""
        self.count = 0
        self.faults = 0
        """Observations that are no mask."""
        self.suspended = False
        self.keeps_overwritten = False
        """Whether an input that is written over is copied before."""

    def forget(self) -> None:
        """Drop what was noted: the step is over and was healthy."""
        self.by_memory.clear()
        self.count = self.faults = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, then look at what came out."""
        given = _unshared(args) if self.keeps_overwritten and func._schema.is_mutable else args
        try:
            out = func(*args, **(kwargs or {}))
        except BaseException as error:
            hide(error)
            raise
        # A view has no numbers of its own: whoever wrote them was looked at.
        if not self.suspended and not _views[func]:
            for tensor in (out,) if isinstance(out, torch.Tensor) else tensors_in(out):
                if checkable(tensor):
                    self._look(func, args, kwargs or {}, tensor, given)
        return out

    def _look(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        out: torch.Tensor,
        before: tuple[Any, ...],
    ) -> None:
        if finite(out):
            if self.faults:
                self._swallowed(func, args, kwargs, out)
            return
        signs = Signs.of(out)
        updated = _updated_statistics(func, args)
        given = [item for item in tensors_in([args, kwargs]) if checkable(item)]
        given = [item for item in given if not any(item is one for one in updated)]
        written = [item for item in given if _name(func) in _WRITES and self._is_constant(item)]
        scalars = tuple(item for item in (*args, *kwargs.values()) if isinstance(item, int | float))
        scalars += tuple(item.item() for item in written)
        if signs.one_infinity and any(map(math.isinf, scalars)):
            self._remember(func, out, signs, scalars=scalars, legal=True)
            return
        known = [item for item in map(self.of, given) if item is not None]
        if known and all(item.legal for item in known) and _handed_on(_name(func), known, signs):
            self._remember(func, out, signs, parents=known, legal=True)
            return
        given = [item for item in given if not any(item is one for one in written)]
        call = func, before, kwargs
        self._note(call, given, scalars, out, signs)

    def _is_constant(self, tensor: torch.Tensor) -> bool:
        """Whether it is the NaN of ``x[i] = nan``, or an inf: a number torch has wrapped, which no operation made."""
        return tensor.dim() == 0 and self.of(tensor) is None and not bool(tensor.isfinite())

    def _note(
        self,
        call: tuple[Any, tuple[Any, ...], dict[str, Any]],
        given: list[torch.Tensor],
        scalars: tuple[Any, ...],
        out: torch.Tensor,
        signs: Signs,
    ) -> None:
        func = call[0]
        # An operation that works in place has overwritten its input; what it was is known if it was bad before.
        inputs = [item for item in given if item is not out]
        overwritten = self.of(out) if len(inputs) < len(given) else None
        stats = tuple(numbers(item) for item in inputs)
        parents = [self._source(item) for item, stat in zip(inputs, stats, strict=True) if not stat.finite]
        for item, stat in zip(inputs, stats, strict=True):
            known = self.of(item) if stat.finite else None
            # A finite view of a tensor that is bad elsewhere counts where its zeros may be what an inf left.
            if known is not None and (known.signs.finite or (stat.zero and not known.legal)):
                parents.append(known)
        parents += [overwritten] if overwritten is not None else []
        legal = (
            bool(parents) and all(item.legal for item in parents) and _handed_on(_name(func), parents, signs)
        )
        tensors = () if parents else tuple(inputs)
        blamed = not legal and all(item.legal for item in parents)
        self._remember(func, out, signs, parents, legal, stats, tensors, scalars, call if blamed else None)

    def _swallowed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: torch.Tensor) -> None:
        """Note a finite result that an overflow has shaped: 2 / inf is 0, and log(0) later is not log's fault.

        Followed only through calls that keep a 0 a 0, not for ever.
        """
        name = _name(func)
        if name not in _SWALLOW and name not in _KEEP_ZEROS:
            return
        known = [self.of(item) for item in tensors_in([args, kwargs]) if checkable(item)]
        sources = [item for item in known if item is not None and not item.legal]
        if sources and not bool(out.all()):
            self._remember(func, out, Signs(), sources)

    def _remember(
        self,
        func: Any,
        out: torch.Tensor,
        signs: Signs,
        parents: list[Observation] | None = None,
        legal: bool = False,
        inputs: tuple[Numbers, ...] = (),
        tensors: tuple[torch.Tensor, ...] = (),
        scalars: tuple[Any, ...] = (),
        call: tuple[Any, tuple[Any, ...], dict[str, Any]] | None = None,
    ) -> None:
        if _name(func) in _UNINITIALISED:
            return
        node = torch._C._current_autograd_node()
        self._keep(
            Observation(
                order=self.count,
                op=_name(func),
                where=self._place(node),
                node=node.name() if node is not None else None,
                result=out,
                signs=signs,
                legal=legal,
                inputs=inputs,
                tensors=tensors,
                parents=parents or [],
                scalars=scalars,
                call=call,
            )
        )

    def _keep(self, item: Observation) -> Observation:
        self.count += 1
        if not item.legal:
            self.faults += 1
            _ = item.out  # now: the tensor may be written to later
        self.by_memory[address(item.result)] = item
        return item

    def _place(self, node: Any) -> Any:
        if node is not None and not hasattr(node, "_forward_cls"):
            return self.entry_of(node)
        # In forward; or in the backward of a custom Function, which is the user's code as well.
        return self.where() if node is None else live_caller()

    def _source(self, tensor: torch.Tensor) -> Observation:
        """Who made this bad tensor; nobody seen: it was bad when it came in."""
        return self.of(tensor) or self.given(tensor, "input")

    def given(self, tensor: torch.Tensor, kind: str) -> Observation:
        """Note a tensor that was bad before the first operation; ``kind`` is "input" or "parameter"."""
        signs = Signs.of(tensor)
        legal = kind == "input" and signs.one_infinity and (signs.neginf or _is_flat(tensor))
        return self._keep(Observation(self.count, kind, None, None, tensor, signs, legal, tensors=(tensor,)))

    def of(self, tensor: torch.Tensor) -> Observation | None:
        """The observation that left NaN or an infinity in this tensor's memory."""
        return self.by_memory.get(address(tensor))


def _is_flat(tensor: torch.Tensor) -> bool:
    """Whether all that is finite is one number: inf among other numbers is data, no mask."""
    good = tensor[tensor.isfinite()]
    return not good.numel() or bool((good == good[0]).all())


def _unshared(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of an operation in place, which writes to its first."""
    return (args[0].clone(), *args[1:]) if args and isinstance(args[0], torch.Tensor) else args


def _updated_statistics(func: Any, args: tuple[Any, ...]) -> Sequence[Any]:
    """The running statistics that a normalisation in training has just written: results rather than inputs."""
    flag = len(args) > 5 and args[5] is True  # of a backward the argument there is a tensor
    training = "batch_norm" in _name(func) and (flag or "with_update" in _name(func))
    return args[3:5] if training else ()


def _handed_on(op: str, parents: Sequence[Observation], signs: Signs) -> bool:
    """Whether the result holds the infinities it was given, and no others; a change of sign is none of them."""
    turned = op in _TURN and signs.one_infinity and all(item.signs.one_infinity for item in parents)
    return turned or any(item.signs == signs for item in parents)


class _Views(dict[Any, bool]):
    """Whether an operation only looks at its input differently. A dict, since it is asked per operation."""

    def __missing__(self, func: Any) -> bool:
        returns = [item.alias_info for item in func._schema.returns]
        self[func] = found = any(alias is not None and not alias.is_write for alias in returns)
        return found


_views = _Views()


def _name(func: Any) -> str:
    name: str = func._schema.name
    return name.rpartition("::")[2]


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
        fed_by = list(ancestors(root))
        for item in fed_by:
            if not item.legal and all(parent.legal for parent in item.parents):
                found[id(item)] = item
        if not found:  # nothing converted the infinity: the mask itself reached the loss
            found.update((id(item), item) for item in fed_by if not item.parents)
    return sorted(found.values(), key=lambda item: item.order)
