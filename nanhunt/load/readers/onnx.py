""".onnx: the initializers of the graph and of its subgraphs (onnx/onnx, onnx.proto), mapped where they lie.

Read without the onnx package, which takes the whole file into memory. Data may lie in files beside the model; those
are mapped too, and a name never leads out of the model's folder.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.formats import FORMATS
from nanhunt.errors import NanhuntError
from nanhunt.load.arrays import byte_size, mapped
from nanhunt.load.container import Container, RefusedTensor
from nanhunt.load.listing import STDIN, beside
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.readers.cursor import CutShort
from nanhunt.load.readers.protobuf import Field, fields, varints
from nanhunt.load.source import Source, open_source
from nanhunt.load.tensor import BITS, Tensor
from nanhunt.load.wording import printable

_HEAD = re.compile(rb"\x08[\x03-\x1f]([\x12:\x1a\x22\x2a\x32\x42])")
"""ir_version, then another field of a ModelProto."""
_GRAPH = 7
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128",
    16: "bfloat16", 17: "float8_e4m3fn", 19: "float8_e5m2",
}  # fmt: skip
_WITHOUT_NAN = {8: "text", 21: "uint4", 22: "int4", 23: "float4", 25: "uint2", 26: "int2"}
"""What cannot be NaN or infinite."""
_DEEPEST = 20
"""Levels of graphs in graphs."""


@dataclass
class _Proto:
    """A TensorProto, as far as it was read."""

    name: str = ""
    kind: int = 0
    dims: list[int] = field(default_factory=list)
    raw: Field | None = None
    typed: list[Field] = field(default_factory=list)
    """Values as numbers of the message, several to a field where they are packed."""
    external: dict[str, str] | None = None
    note: str = ""


def _is_onnx(source: Source) -> bool:
    if not _HEAD.match(source.head):
        return False
    try:
        return any(each.number == _GRAPH for each in _top(source, _content(source)))
    except CutShort:
        return b"onnx" in source.head or b"pytorch" in source.head  # who wrote it stands first


def _content(source: Source) -> mmap.mmap:
    with source.open() as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def _top(source: Source, content: mmap.mmap) -> Iterator[Field]:
    return fields(content, 0, source.size)


def _open(source: Source, reading: Reading) -> Container:
    """All initializers in the order of the graph. Raises NanhuntError for what is not a whole model."""
    content = _content(source)
    tensors: dict[str, Tensor] = {}
    refused: dict[str, RefusedTensor] = {}
    unread: dict[str, str] = {}
    missing: dict[str, NanhuntError] = {}
    try:
        for proto in _protos(source, content):
            if proto.kind in _WITHOUT_NAN:
                continue
            if proto.kind not in _DTYPES:
                message = f"{source.name}:{printable(proto.name)} is of ONNX's type {proto.kind}"
                refused[proto.name] = RefusedTensor(f"{message}, not known here.", "Store it as float32.")
                continue
            try:
                tensor = _tensor(source, content, proto)
                if _is_fill(tensor):
                    unread[proto.name] = "a constant of -inf, as masks are filled with"
                else:
                    tensors[proto.name] = tensor
            except NanhuntError as error:
                missing.setdefault(error.message, error)
    except CutShort as error:
        raise _damaged(source, str(error)) from None
    if missing and not tensors:
        raise next(iter(missing.values()))
    return Container(source.file, tensors, "onnx", refused, unread=unread, missing=tuple(missing.values()))


def _is_fill(tensor: Tensor) -> bool:
    """Whether this is the number that an exported masked_fill writes."""
    format_ = FORMATS.get(tensor.dtype)
    if math.prod(tensor.shape) != 1 or format_ is None or not format_.in_numpy:
        return False
    return bool(np.isneginf(tensor.data).all())


def _protos(source: Source, content: mmap.mmap) -> Iterator[_Proto]:
    for each in _top(source, content):
        if each.number == _GRAPH:
            yield from _of_graph(content, each, 0)


def _of_graph(content: mmap.mmap, graph: Field, depth: int) -> Iterator[_Proto]:
    if depth > _DEEPEST:
        raise CutShort(f"it nests graphs {depth:,} levels deep")
    for each in fields(content, graph.begin, graph.end):
        if each.number == _INITIALIZER:
            yield _proto(content, each)
        elif each.number == _SPARSE:
            for part in fields(content, each.begin, each.end):
                if part.number == 1:
                    proto = _proto(content, part)
                    proto.note = "sparse: the values that are stored"
                    yield proto
        elif each.number == _NODE:
            for graph_inside in _subgraphs(content, each):
                yield from _of_graph(content, graph_inside, depth + 1)


def _subgraphs(content: mmap.mmap, node: Field) -> Iterator[Field]:
    """Graphs among a node's attributes: the branches of an If, the body of a Loop."""
    for attribute in fields(content, node.begin, node.end):
        if attribute.number == 5:
            for part in fields(content, attribute.begin, attribute.end):
                if part.number in (6, 11):
                    yield part


def _proto(content: mmap.mmap, span: Field) -> _Proto:
    found = _Proto()
    for each in fields(content, span.begin, span.end):
        match each.number:
            case 1:
                found.dims += _packed(content, each)
            case 2:
                found.kind = each.value
            case 8:
                found.name = content[each.begin : each.end].decode("utf-8", "replace")
            case 9:
                found.raw = each
            case 4 | 5 | 7 | 10 | 11:
                found.typed.append(each)
            case 13:
                found.external = (found.external or {}) | _pair(content, each)
    return found


def _packed(content: mmap.mmap, each: Field) -> list[int]:
    """Numbers of a repeated field, which may be written one by one or together."""
    return list(varints(content, each)) if each.packed else [each.value]


def _pair(content: mmap.mmap, span: Field) -> dict[str, str]:
    """A StringStringEntryProto."""
    texts = {
        each.number: content[each.begin : each.end].decode("utf-8", "replace")
        for each in fields(content, span.begin, span.end)
    }
    return {texts.get(1, ""): texts.get(2, "")}


def _tensor(source: Source, content: mmap.mmap, proto: _Proto) -> Tensor:
    """One initializer. Raises NanhuntError when its bytes are not there, or not as many as its shape needs."""
    dtype, shape = _DTYPES[proto.kind], tuple(proto.dims)
    stored = np.dtype(BITS.get(dtype, dtype)).newbyteorder("<")
    size = byte_size(shape, stored.itemsize) if all(0 <= each < 1 << 62 for each in shape) else None
    if size is None:
        raise _damaged(source, f"{printable(proto.name)[:80]} claims the shape {str(shape)[:80]}")
    if proto.external is not None:
        place, at, room = _beside(source, proto)
    elif proto.raw is not None or not proto.typed:
        raw = proto.raw or Field(9, 0, 0, 0)
        place, at, room = source, raw.begin, raw.end - raw.begin
    else:
        return Tensor(
            source.file, proto.name, dtype, shape,
            lambda: _numbers(source, content, proto, stored, shape), note=proto.note,
        )  # fmt: skip
    if size != room and not (size < room and proto.external is not None):
        raise _damaged(place, f"{printable(proto.name)[:80]} needs {size:,} bytes and has {max(0, room):,}")
    return Tensor(
        source.file, proto.name, dtype, shape, lambda: mapped(place, at, stored, shape), note=proto.note
    )


def _beside(source: Source, proto: _Proto) -> tuple[Source, int, int]:
    """(the file, where in it, bytes from there on) of external data."""
    said = proto.external or {}
    location = _location(said)
    if location is None or source.file == STDIN:
        message = f'{source.name}: the data of {printable(proto.name)[:80]} is said to lie in "'
        raise NanhuntError(
            f'{message}{printable(said.get("location", ""))[:80]}", which is not beside it.',
            "Put external data into the folder of the model.",
        )
    place = open_source(beside(source.file, location))
    try:
        at = int(said.get("offset", "0"))
        length = int(said.get("length", str(place.size - at)))
    except ValueError:
        raise _damaged(source, f"it does not say where in {printable(location)[:80]} its data lie") from None
    if not 0 <= at <= at + length <= place.size:
        raise _damaged(
            place, f"it has {place.size:,} bytes, and {printable(proto.name)[:80]} ends at {at + length:,}"
        )
    return place, at, length


def _location(said: dict[str, str]) -> str | None:
    """The path of external data below the model's folder; None for one that leads out of it."""
    location = said.get("location", "")
    path = PurePosixPath(location)
    out = path.is_absolute() or ".." in path.parts or "\\" in location or "\0" in location
    return None if out or not path.parts else location


def _numbers(
    source: Source, content: mmap.mmap, proto: _Proto, stored: np.dtype[Any], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Values that the message holds as numbers: floats as they are, half precision as bits in integers.

    Raises NanhuntError where one is cut off.
    """
    try:
        return _typed(source, content, proto, stored, shape)
    except CutShort as error:
        raise _damaged(source, str(error)) from None


def _typed(
    source: Source, content: mmap.mmap, proto: _Proto, stored: np.dtype[Any], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    if proto.typed[0].number in (4, 10):
        code = np.dtype("<f4" if proto.typed[0].number == 4 else "<f8")
        data = b"".join(content[each.begin : each.end] for each in proto.typed)
        if len(data) % code.itemsize:
            raise CutShort("a number is cut off")
        found = np.frombuffer(data, code)
    else:
        whole = [value for each in proto.typed for value in _packed(content, each)]
        wide = np.array([value & (1 << 64) - 1 for value in whole], np.uint64)
        found = wide.astype(f"u{stored.itemsize}").view(stored)
    kind = np.dtype(stored).newbyteorder("=")
    if proto.kind in (14, 15):
        found = found.view(kind)
    if found.size != math.prod(shape):
        raise _damaged(source, f"{printable(proto.name)[:80]} {shape} has {found.size:,} values")
    return found.astype(kind, copy=False).reshape(shape)


def _parts(source: Source) -> Collection[str]:
    """Files of external data in the model's own folder."""
    try:
        said = [proto.external for proto in _protos(source, _content(source)) if proto.external]
    except CutShort:
        return ()  # opening it says why
    return {location for each in said if (location := _location(each)) and "/" not in location}


def _damaged(source: Source, why: str) -> NanhuntError:
    return NanhuntError(f"{source.name} is not a whole ONNX model: {why}.", "Copy or export it again.")


READER = FileReader("onnx", (".onnx",), _is_onnx, _open, (), _parts)
