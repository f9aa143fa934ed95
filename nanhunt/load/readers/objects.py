"""Everything in an unpickled object that holds numbers, with the keys that lead to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nanhunt.load.readers.pickled import External, Global, Instance, as_bytes

MOST_OBJECTS = 2_000_000
"""Leaves and containers visited: a few lists that hold each other spell out more than any file."""
DEEPEST = 100
"""Levels of containers."""
SHORTEST_BYTES = 16
"""Raw bytes below are dates and the like; from here on they may be numbers nobody looked at."""

_MODULE_PARTS = ("_parameters", "_buffers", "_modules")
"""Attributes of an nn.Module that a state_dict does not spell out."""
_TENSOR_CALLS = (
    "torch._utils._rebuild_", "torch._tensor._rebuild_", "torch.nn.parameter.",
)  # fmt: skip
_SHELLS = ("_rebuild_wrapper_subclass", "DTensor", "_rebuild_njt")
"""Tensors that hold others: those are found as their attributes."""
_ARRAY_CALLS = {
    f"numpy.{core}.{name}"
    for core in ("core", "_core")
    for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
}
_CONFIGURED = re.compile(r"(?s)\A(\w+)\{'.*\}\Z")
"""How Lightning keys a callback's state: its class, then a dict of its settings, which no name is long enough for."""
Path = tuple[str, ...]


class TooManyObjects(Exception):  # noqa: N818 - the reader says it in the user's words
    """The object nests, or spells itself out, without end; the argument is the level."""


@dataclass
class Contents:
    """What was found in an object, in its order."""

    values: list[tuple[Path, Instance]] = field(default_factory=list)
    """Calls that rebuild torch tensors, NumPy arrays and NumPy scalars."""
    numbers: list[tuple[Path, list[float]]] = field(default_factory=list)
    """Python floats and lists of them; real and imaginary part of complex ones."""
    unread: list[tuple[Path, str]] = field(default_factory=list)
    """What may hold numbers and was not looked at, and what it is."""


def contents(found: object) -> Contents:
    """Walks nested containers and the attributes of instances of any class.

    Raises TooManyObjects for lists that hold each other or nest without end.
    """
    result = Contents()
    # ``above`` ends loops, yet a container that is saved under two names is walked under both.
    waiting: list[tuple[Path, object, frozenset[int]]] = [((), found, frozenset())]
    visited = 0
    while waiting:
        path, value, above = waiting.pop()
        visited += 1
        if visited > MOST_OBJECTS or len(path) > DEEPEST:
            raise TooManyObjects(len(path))
        if not _is_leaf(path, value, result) and id(value) not in above:
            inside = above | {id(value)}
            children = [((*path, *keys), item, inside) for keys, item in _children(value)]
            waiting.extend(reversed(children))
    return result


def _is_leaf(path: Path, value: object, result: Contents) -> bool:
    """Files ``value`` under what it is; False for a container."""
    if isinstance(value, Instance):
        return _is_array(path, value, result)
    if isinstance(value, float | complex):
        result.numbers.append((path, _parts(value)))
    elif isinstance(value, list | tuple) and _all_numbers(value):
        if any(isinstance(item, float) for item in value):
            result.numbers.append((path, [float(item) for item in value]))
    elif isinstance(value, bytes) and len(value) >= SHORTEST_BYTES:
        result.unread.append((path, f"{len(value):,} raw bytes"))
    elif isinstance(value, External):
        result.unread.append((path, "an object outside of the pickle"))
    else:
        return not isinstance(value, Mapping | list | tuple | set | frozenset)
    return True


def _is_array(path: Path, value: Instance, result: Contents) -> bool:
    if _rebuilds(value):
        result.values.append((path, value))
    elif (raw := as_bytes(value)) is not None:
        return _is_leaf(path, raw, result)
    else:
        return False
    return True


def _rebuilds(value: Instance) -> bool:
    """Whether a call makes one tensor or array, and not a subclass around several (DTensor, quantized weights)."""
    call = value.made_by.path
    wraps = any(isinstance(each, Global) and each.name in _SHELLS for each in value.args[:1])
    if wraps or value.made_by.name in _SHELLS:
        return False
    is_tensor = call.startswith("torch.") and (call.startswith(_TENSOR_CALLS) or call.endswith("Tensor"))
    return is_tensor or call in _ARRAY_CALLS


def _parts(value: float | complex) -> list[float]:
    return [value.real, value.imag] if isinstance(value, complex) else [value]


def _all_numbers(values: list[Any] | tuple[Any, ...]) -> bool:
    # Numbers too large for a float are whole, and finite.
    return len(values) > 0 and all(
        isinstance(item, float) or (isinstance(item, int) and abs(item) < 1 << 1000) for item in values
    )


def _children(value: object) -> Iterator[tuple[Path, object]]:
    """(keys, item) of a container: one key, or none where the level is not worth a name."""
    if isinstance(value, Instance) and value.made_by.name == "_rebuild_from_type_v2":
        values = _jagged(value)
        if values is not None:
            yield (), values
            return
        for each in value.args[2:]:  # its arguments, and the attributes of the subclass
            yield from _attributes(each)
    elif isinstance(value, Instance):
        yield from (((str(index),), item) for index, item in enumerate(value.args))
        yield from _attributes(value.state)
        yield from (((str(index),), item) for index, item in enumerate(value.items))
        yield from (((spelled(key),), item) for key, item in value.pairs.items())
    else:
        yield from (((spelled(key),), item) for key, item in _items(value))


def _jagged(value: Instance) -> Instance | None:
    """The values of all tensors in a jagged nested one, which is saved twice over: as arguments and attributes."""
    match value.args:
        case (Global(_, "_rebuild_njt"), _, ({"values": Instance() as values},), *_):
            return values
    return None


def _attributes(state: object) -> Iterator[tuple[Path, object]]:
    """An instance's attributes; its parameters and modules under the names a state_dict gives them."""
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict | None):
        yield from _attributes(state[0])  # a class with slots
        yield from _attributes(state[1])
    elif isinstance(state, dict):
        for key, item in state.items():
            yield (() if key in _MODULE_PARTS else (spelled(key),)), item
    elif state is not None:
        yield ("state",), state


def _items(value: object) -> Iterable[tuple[object, object]]:
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple | set | frozenset) else ()


def spelled(key: object) -> str:
    """A key as a part of a name."""
    if isinstance(key, str):
        return _CONFIGURED.sub(r"\1", key)
    if isinstance(key, int | float | bool | None):
        return str(key)
    if isinstance(key, Global):
        return key.path
    if isinstance(key, Instance):
        return key.made_by.path
    if isinstance(key, tuple):
        return f"({', '.join(map(spelled, key[:8]))})"
    return type(key).__name__
