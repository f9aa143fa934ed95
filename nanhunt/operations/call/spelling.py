"""A call as a file holds it: the name of a PyTorch operation, and its arguments in JSON's own types.

Numbers, texts and lists are themselves; what JSON has no type for is a dict of one key: ``{"tensor": NAME}``,
``{"dtype": "float32"}``, ``{"number": "inf"}``, ``{"text": "none"}``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nanhunt.operations.call.allowed import overload

_KINDS = {
    "dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format,
}  # fmt: skip
"""Constants that torch has under their own names."""


class CannotSpell(Exception):  # noqa: N818 - a condition to report
    """An argument that no file can hold, or an operation that no file may ask for; the text says which."""


class BadSpelling(Exception):  # noqa: N818 - becomes an error that names the file
    """The file does not hold a call."""


@dataclass(frozen=True)
class Call:
    """An operation and its arguments, with names in place of tensors."""

    name: str
    """"aten.div.Tensor"."""
    args: list[Any]
    kwargs: dict[str, Any]

    @property
    def short(self) -> str:
        """Its name alone: "div"."""
        return self.name.split(".")[1]

    @property
    def tensors(self) -> list[str]:
        """Names of the tensors that it is given, in order."""
        return list(dict.fromkeys(_named([self.args, *self.kwargs.values()])))

    def run(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """What it gives for these tensors. Raises BadSpelling; and RuntimeError where PyTorch does."""
        found = overload(self.name)
        if found is None:
            raise BadSpelling(f"it asks for {self.name[:60]}, which no file may")
        args = [read(each, tensors) for each in self.args]
        return found(*args, **{name: read(each, tensors) for name, each in self.kwargs.items()})


def call_of(value: object) -> Call:
    """From JSON. Raises BadSpelling."""
    match value:
        case {"call": str(name), "args": list(args), "kwargs": dict(kwargs)}:
            return Call(name, args, kwargs)
    raise BadSpelling("a call is not written as nanhunt writes it")


def spelled(call: Call) -> dict[str, Any]:
    """For JSON."""
    return {"call": call.name, "args": call.args, "kwargs": call.kwargs}


def written(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: Callable[[torch.Tensor, str], str]
) -> Call:
    """A dispatched call; ``name`` is given each tensor, and what the operation calls that argument.

    Raises CannotSpell for an operation that is not on the list, and for an argument of a kind that is not.
    """
    called = str(func) if "." in str(func).partition(".")[2] else f"{func}.default"
    if overload(called) is None:
        raise CannotSpell(
            f"{called.removesuffix('.default')} is not among the operations that a file may ask for"
        )
    labels = [each.name for each in func._schema.arguments]
    return Call(
        called,
        [write(each, name, label) for each, label in zip(args, labels, strict=False)],
        {key: write(each, name, key) for key, each in kwargs.items()},
    )


def write(value: object, name: Callable[[torch.Tensor, str], str], label: str = "") -> Any:
    """One argument. Raises CannotSpell for what is no number, text, tensor or constant of torch."""
    if isinstance(value, torch.Tensor):
        return {"tensor": name(value, label)}
    if isinstance(value, list | tuple):
        return [write(each, name, f"{label}.{number}") for number, each in enumerate(value)]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"number": str(value)}
    return _write_constant(value)


def _write_constant(value: object) -> dict[str, str]:
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, torch.device):
        return {"device": value.type}
    for key, kind in _KINDS.items():
        if isinstance(value, kind):
            return {key: str(value).removeprefix("torch.")}
    raise CannotSpell(f"an argument is a {type(value).__name__}")


def read(value: object, tensors: Mapping[str, Any]) -> Any:
    """One argument; ``tensors`` is what stands for each name. Raises BadSpelling."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list):
        return [read(each, tensors) for each in value]
    match value:
        case {"tensor": str(name)} if name in tensors:
            return tensors[name]
        case dict() if len(value) == 1:
            [(key, name)] = value.items()
            return _read_constant(key, name)
    raise BadSpelling(f"an argument is not written as nanhunt writes it: {str(value)[:60]}")


def _read_constant(key: object, name: object) -> Any:
    match key, name:
        case "number", "nan" | "inf" | "-inf":
            return float(str(name))
        case "text", str():
            return name
        case "device", str():
            return torch.device("cpu")  # where files are read, whatever it ran on
        case str(), str() if isinstance(found := getattr(torch, name, None), _KINDS.get(key, ())):
            return found
    raise BadSpelling(f"an argument is not written as nanhunt writes it: {str(key)[:60]}")


def _named(value: object) -> Iterator[str]:
    match value:
        case {"tensor": str(name)}:
            yield name
        case list():
            for each in value:
                yield from _named(each)
