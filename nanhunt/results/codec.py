"""Frozen dataclasses to what JSON can hold, and back, led by their type hints alone."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

_FLOAT_NAMES = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def encode(value: Any) -> Any:
    """Dataclasses to dicts, tuples to lists, non-finite floats to their names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: encode(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, float) and not isinstance(value, int):
        return value if math.isfinite(value) else _float_name(value)
    return value


def _float_name(value: float) -> str:
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


@functools.cache
def _field_types(kind: type) -> dict[str, Any]:
    """Resolved once per class: a report of a long run holds a hundred thousand row bins."""
    return get_type_hints(kind)


WIDTH = 100
"""Characters up to which a list or an object of JSON stands on one line."""


def written(value: Any, indent: int | None = 2) -> str:
    """JSON of what ``encode`` made, non-finite floats being names there; ``indent`` None: all of it on one line.

    Lists of numbers and what is short stand on one line: a long run has thousands of bins.
    """
    return _dumped(value) if indent is None else _written(value, "\n", " " * indent)


def _written(value: Any, line: str, indent: str) -> str:
    """``line``: the line feed and the indentation that ``value`` stands at."""
    is_object = isinstance(value, dict)
    parts = list(value.values()) if is_object else value if isinstance(value, list) else []
    if not any(isinstance(part, dict | list) and part for part in parts):
        flat = _dumped(value)  # in one call, since there are many of these
        if not is_object or len(flat) <= WIDTH:
            return flat
    inner = line + indent
    texts = [_written(part, inner, indent) for part in parts]
    if is_object:
        texts = [f"{_dumped(str(key))}: {text}" for key, text in zip(value, texts, strict=True)]
    opening, closing = "{}" if is_object else "[]"
    if sum(map(len, texts)) + 2 * len(texts) <= WIDTH and not any("\n" in text for text in texts):
        return opening + ", ".join(texts) + closing
    return opening + inner + f",{inner}".join(texts) + line + closing


_dumped = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode


def decode(kind: Any, value: Any) -> Any:
    """The inverse of ``encode`` for a type; unknown fields are passed over. KeyError or TypeError for other values."""
    origin, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _field_types(kind)
        return kind(**{name: decode(hints[name], value[name]) for name in value if name in hints})
    if origin is tuple:
        inner = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(decode(item_kind, item) for item_kind, item in zip(inner, value, strict=True))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: decode(args[1], item) for key, item in value.items()}
    if args:  # X | Y | None
        kinds = [arg for arg in args if arg is not type(None)]
        return None if value is None else decode(type(value) if type(value) in kinds else kinds[0], value)
    if kind is float:
        return _FLOAT_NAMES[value] if isinstance(value, str) else float(value)
    return value if kind is Any else kind(value)
