""".msgpack: what flax.serialization writes, a MessagePack map whose arrays are mapped where they lie.

The format: github.com/msgpack/msgpack/blob/master/spec.md; flax/serialization.py keeps an array as extension 1, itself
(shape, name of the dtype, bytes), and one beyond 1 GiB as a map of pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.errors import NanhuntError
from nanhunt.load.arrays import byte_size, mapped
from nanhunt.load.container import Container, RefusedTensor
from nanhunt.load.numbers import plain_numbers, settings_of
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.readers.cursor import Cursor, CutShort
from nanhunt.load.shards import Shard, sharded
from nanhunt.load.source import Source
from nanhunt.load.tensor import BITS, COMPLEX, FLOATING, INTEGER, Tensor
from nanhunt.load.wording import printable

_DEEPEST = 100
_MOST = 4_000_000
"""Values that are no arrays: a few bytes each in the file, many more in memory."""
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
"""flax's extensions."""
_CHUNKED = "__msgpack_chunked_array__"
_NUMBERS = {
    0xCA: "f", 0xCB: "d", 0xCC: "B", 0xCD: "H", 0xCE: "I", 0xCF: "Q", 0xD0: "b", 0xD1: "h", 0xD2: "i",
    0xD3: "q",
}  # fmt: skip
_LENGTHS = {
    0xC4: "B", 0xC5: "H", 0xC6: "I", 0xC7: "B", 0xC8: "H", 0xC9: "I", 0xD9: "B", 0xDA: "H", 0xDB: "I",
    0xDC: "H", 0xDD: "I", 0xDE: "H", 0xDF: "I",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
Path = tuple[str, ...]


@dataclass(frozen=True)
class _Span:
    """Bytes that stay in the file."""

    begin: int
    size: int


@dataclass(frozen=True)
class _Array:
    """An array as flax packs it."""

    shape: tuple[int, ...]
    dtype: str
    values: _Span


def _is_msgpack(source: Source) -> bool:
    """Whether it begins as a map with a text for a key: 0x80 alone would be a pickle, too."""
    head = source.head
    if 0x81 <= head[0] <= 0x8F:
        rest = head[1:]
    elif head[0] in (0xDE, 0xDF):
        rest = head[3 if head[0] == 0xDE else 5 :]
    else:
        return False
    if len(rest) < 3 or not (0xA1 <= rest[0] <= 0xBF or rest[0] == 0xD9):
        return False
    key = rest[1 : 1 + (rest[0] & 31)] if rest[0] != 0xD9 else rest[2 : 2 + rest[1]]
    return key.decode("utf-8", "replace").isprintable() and "\ufffd" not in key.decode("utf-8", "replace")


def _open(source: Source, reading: Reading) -> Container:
    """All arrays and numbers under dotted names. Raises NanhuntError for what is not whole."""
    try:
        with source.open() as stream:
            cursor = Cursor(stream, source.size, ">")
            content = _value(cursor, 0)
            if cursor.at != source.size:
                raise CutShort(f"{source.size - cursor.at:,} bytes follow its end")
        return _container(source, content)
    except (CutShort, UnicodeDecodeError) as error:
        why = printable(str(error))[:120]
        message = f"{source.name} is MessagePack that is truncated or damaged: {why}."
        raise NanhuntError(message, "Copy or write it again.") from None


def _container(source: Source, content: object) -> Container:
    tensors: dict[str, Tensor] = {}
    refused: dict[str, RefusedTensor] = {}
    numbers: list[tuple[Path, list[float]]] = []
    for path, value in _leaves((), content):
        name = ".".join(path)
        if isinstance(value, float | complex):
            parts = [value.real, value.imag] if isinstance(value, complex) else [value]
            numbers.append((path, parts))
            continue
        try:
            tensors[name] = _tensor(source, name, value)
        except RefusedTensor as error:
            refused[name] = error
    told = plain_numbers(source, numbers)
    return Container(source.file, tensors, "msgpack", refused, told, settings=settings_of(content))


def _leaves(path: Path, value: object) -> Iterator[tuple[Path, Any]]:
    """Arrays (one in pieces as a dict of them) and floats, with the keys that lead to them."""
    if isinstance(value, _Array | float | complex) or (isinstance(value, dict) and value.get(_CHUNKED)):
        yield path, value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in items:
            yield from _leaves((*path, str(key)), each)


def _tensor(source: Source, name: str, value: Any) -> Tensor:
    label = f"{source.name}:{printable(name)}"
    if isinstance(value, _Array):
        stored = _stored(value, label)
        place, shape = value.values.begin, value.shape
        return Tensor(source.file, name, value.dtype, shape, lambda: mapped(source, place, stored, shape))
    return _chunked(source, name, value, label)


def _stored(value: _Array, label: str) -> np.dtype[Any]:
    if value.dtype not in (*FLOATING, *INTEGER, *COMPLEX):
        raise RefusedTensor(
            f"{label} is {printable(value.dtype)[:40]}, which nanhunt cannot judge.", "Store it as float32."
        )
    stored = np.dtype(BITS.get(value.dtype, value.dtype)).newbyteorder("<")
    if byte_size(value.shape, stored.itemsize) != value.values.size:
        raise CutShort(f"{label[-80:]} {str(value.shape)[:80]} lies in {value.values.size:,} bytes")
    return stored


def _chunked(source: Source, name: str, value: dict[str, Any], label: str) -> Tensor:
    """An array in pieces, each a flat run of its values in C order."""
    shape = tuple(_in_order(value.get("shape")))
    pieces = [each for each in _in_order(value.get("chunks")) if isinstance(each, _Array)]
    whole = all(type(size) is int and 0 <= size < 1 << 62 for size in shape)
    total = sum(math.prod(each.shape) for each in pieces)
    if not pieces or not whole or len({each.dtype for each in pieces}) > 1 or total != math.prod(shape):
        raise CutShort(f"{label[-80:]} has pieces that do not make one array")
    stored = [_stored(each, label) for each in pieces]
    starts = np.cumsum([0, *(math.prod(each.shape) for each in pieces)]).tolist()

    def shards() -> list[Shard]:
        return [
            Shard((start,), mapped(source, each.values.begin, kind, (math.prod(each.shape),)))
            for start, each, kind in zip(starts, pieces, stored, strict=False)
        ]

    flat = sharded(source, name, pieces[0].dtype, (total,), shards)

    def read() -> npt.NDArray[Any]:
        return flat.read().reshape(shape)

    return Tensor(source.file, name, pieces[0].dtype, shape, read)


def _in_order(value: object) -> list[Any]:
    """flax keeps a tuple as a map from "0", "1" and so on."""
    if not isinstance(value, dict):
        return []
    return [value[str(number)] for number in range(len(value)) if str(number) in value]


def _value(cursor: Cursor, depth: int) -> Any:
    """The next value; arrays as places in the file."""
    if depth > _DEEPEST or cursor.reads > _MOST:
        raise CutShort(f"it holds over {cursor.reads:,} values, {depth:,} levels deep")
    mark = cursor.number("B")
    if mark < 0x80 or mark >= 0xE0:
        return mark if mark < 0x80 else mark - 256
    if mark < 0xC0:
        return _short(cursor, mark, depth)
    if mark in _CONSTANTS:
        return _CONSTANTS[mark]
    if mark in _NUMBERS:
        return cursor.number(_NUMBERS[mark])
    if 0xD4 <= mark <= 0xD8:
        return _extension(cursor, 1 << (mark - 0xD4), depth)
    if mark not in _LENGTHS:
        raise CutShort(f"there is no value that begins with {mark:#x}")
    return _long(cursor, mark, cursor.number(_LENGTHS[mark]), depth)


def _short(cursor: Cursor, mark: int, depth: int) -> Any:
    """A map, list or text whose length is in its first byte."""
    if mark < 0x90:
        return _map(cursor, mark & 15, depth)
    if mark < 0xA0:
        return [_value(cursor, depth + 1) for _ in range(mark & 15)]
    return cursor.take(mark & 31).decode()


def _long(cursor: Cursor, mark: int, length: int, depth: int) -> Any:
    """What states its length: bytes, extensions, texts, lists, maps."""
    if mark <= 0xC6:
        return _Span(cursor.skip(length), length)
    if mark <= 0xC9:
        return _extension(cursor, length, depth)
    if mark <= 0xDB:
        return cursor.take(length).decode()
    if mark <= 0xDD:
        return [_value(cursor, depth + 1) for _ in range(length)]
    return _map(cursor, length, depth)


def _map(cursor: Cursor, length: int, depth: int) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for _ in range(length):
        key = _value(cursor, depth + 1)
        if not isinstance(key, str | int):
            raise CutShort("a key is neither a text nor a number")
        found[key] = _value(cursor, depth + 1)
    return found


def _extension(cursor: Cursor, length: int, depth: int) -> Any:
    kind, end = cursor.number("b"), cursor.at + length
    if end > cursor.end:
        raise CutShort(f"it claims {length:,} bytes at {cursor.at:,}, and ends at {cursor.end:,}")
    if kind not in (_ARRAY, _COMPLEX, _SCALAR):
        cursor.skip(length)
        return None
    value = _value(cursor, depth + 1)
    if cursor.at != end:
        raise CutShort(f"an array ends at {cursor.at:,}, and not at {end:,} as it says")
    match value:
        case [list(shape), str(dtype), _Span() as values] if all(
            type(size) is int and size >= 0 for size in shape
        ):
            return _Array(tuple(shape), dtype, values)
        case [float(real), float(imaginary)]:
            return complex(real, imaginary)
    raise CutShort(f"extension {kind} holds no array")


READER = FileReader("msgpack", (".msgpack",), _is_msgpack, _open)
