"""A taped call as the low-level operations that it came to: what a file can hold instead of a Python function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nanhunt.operations.call.spelling import BadSpelling, Call, CannotSpell, call_of, read, spelled, written

from .numbers import tensors_in

_READS_A_NUMBER = frozenset({"aten._local_scalar_dense.default", "aten.item.default"})
_DETACH = "aten.detach.default"
_UNKNOWN = "a call makes a tensor by what is no operation"


@dataclass(frozen=True)
class Line:
    """One low-level call."""

    call: Call
    out: Any
    """Names of what it makes, ``{"tensor": NAME}`` or lists of those; None for what is no tensor."""
    grad: bool
    """Whether gradients were recorded."""


@dataclass(frozen=True)
class Program:
    """Runs in the place of a taped call: what it is given is called "given-0" and so on, in the order of its slots."""

    name: str
    """Of the torch function: causes go by it."""
    lines: Sequence[Line]
    out: Any
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Tensors that it used and was not given."""

    @property
    def __name__(self) -> str:
        """As functions have it."""
        return self.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it. Raises BadSpelling, and what PyTorch raises."""
        known = {f"given-{number}": tensor for number, tensor in enumerate(tensors_in([args, kwargs]))}
        known |= self.constants
        for line in self.lines:
            with torch.set_grad_enabled(line.grad):
                _keep(line.out, line.call.run(known), known)
        return read(self.out, known)

    def spelled(self) -> dict[str, Any]:
        """For JSON, without the constants."""
        lines = [{**spelled(line.call), "out": line.out, "grad": line.grad} for line in self.lines]
        return {"name": self.name, "lines": lines, "out": self.out}


def program_of(value: object, constants: Mapping[str, torch.Tensor]) -> Program:
    """From JSON. Raises BadSpelling."""
    match value:
        case {"name": str(name), "lines": list(lines), "out": out}:
            return Program(name, [_line_of(line) for line in lines], out, constants)
    raise BadSpelling("a step is not written as nanhunt writes it")


def _line_of(value: object) -> Line:
    match value:
        case {"out": out, "grad": bool(grad)}:
            return Line(call_of(value), out, grad)
    raise BadSpelling("a step is not written as nanhunt writes it")


def _keep(names: Any, made: Any, known: dict[str, torch.Tensor]) -> None:
    match names:
        case {"tensor": str(name)} if isinstance(made, torch.Tensor):
            known[name] = made
        case list() if isinstance(made, list | tuple) and len(made) == len(names):
            for name, item in zip(names, made, strict=True):
                _keep(name, item, known)


class Writer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what a call comes to while it runs.

    Autograd hands views on as new objects, so a tensor that is not known is looked up by the memory that it shows.
    """

    def __init__(self, given: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lines: list[Line] = []
        self.constants: dict[str, torch.Tensor] = {}
        self.refused = ""
        """Why it cannot be written down."""
        self.reaches_outside = False
        """Whether it used a tensor that it was not given, and that gradients go through."""
        self._known: list[tuple[str, torch.Tensor, bool]] = []
        """Name, tensor, whether gradients go through it; the tensors are kept, so that no id is used twice."""
        self._by_id: dict[int, str] = {}
        self._by_view: dict[tuple[Any, ...], list[int]] = {}
        for number, tensor in enumerate(given):
            self._add(f"given-{number}", tensor, tensor.requires_grad)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run it, and note it."""
        if self.refused or str(func) in _READS_A_NUMBER:
            return func(*args, **(kwargs or {}))
        try:
            call = written(func, args, kwargs or {}, self._name)
        except CannotSpell as reason:
            self.refused = str(reason)
            return func(*args, **(kwargs or {}))
        grad = torch.is_grad_enabled()
        differentiable = (
            grad and call.name != _DETACH and any(one.requires_grad for one in tensors_in([args, kwargs]))
        )
        out = func(*args, **(kwargs or {}))
        self.lines.append(Line(call, self._made(out, differentiable), grad))
        return out

    def program(self, name: str, out: Any) -> Program:
        """What was written. Raises CannotSpell where something could not be."""
        if self.refused:
            raise CannotSpell(self.refused)
        return Program(name, self.lines, self._result(out), self.constants)

    def _result(self, out: Any) -> Any:
        if isinstance(out, tuple | list):
            return [self._result(item) for item in out]
        if not isinstance(out, torch.Tensor):
            return None
        name = self._find(out)
        if name is None:
            raise CannotSpell(_UNKNOWN)
        if not out.requires_grad and any(known == name and through for known, _, through in self._known):
            # A property like x.data: the same numbers, cut off.
            cut = f"made-{len(self._known)}"
            self.lines.append(Line(Call(_DETACH, [{"tensor": name}], {}), {"tensor": cut}, grad=False))
            return {"tensor": cut}
        return {"tensor": name}

    def _name(self, tensor: torch.Tensor, label: str) -> str:
        name = self._find(tensor)
        if name is None:
            self.reaches_outside |= tensor.requires_grad
            name = f"constant-{len(self.constants)}"
            self.constants[name] = tensor.detach().cpu().clone()
            self._add(name, tensor, through=False)
        return name

    def _find(self, tensor: torch.Tensor) -> str | None:
        if id(tensor) in self._by_id:
            return self._by_id[id(tensor)]
        alike = [self._known[place] for place in self._by_view.get(_view(tensor), ())]
        fitting = [name for name, _, through in alike if through == tensor.requires_grad]
        return next(iter([*fitting[::-1], *(name for name, _, _ in alike[::-1])]), None)

    def _made(self, out: Any, differentiable: bool) -> Any:
        if isinstance(out, tuple | list):
            return [self._made(item, differentiable) for item in out]
        if not isinstance(out, torch.Tensor):
            return None
        if id(out) in self._by_id:  # an operation in place
            return {"tensor": self._by_id[id(out)]}
        name = f"made-{len(self._known)}"
        self._add(name, out, differentiable)
        return {"tensor": name}

    def _add(self, name: str, tensor: torch.Tensor, through: bool) -> None:
        self._by_id[id(tensor)] = name
        self._by_view.setdefault(_view(tensor), []).append(len(self._known))
        self._known.append((name, tensor, through))


def _view(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What a tensor shows of which memory."""
    if tensor.layout is not torch.strided:
        return (id(tensor),)
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype
