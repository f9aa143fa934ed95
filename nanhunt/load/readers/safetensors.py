""".safetensors: eight bytes of length, a JSON header, the bytes (huggingface.co/docs/safetensors).

Read here, and not with the safetensors package, so that bfloat16 and float8 are mapped as bits without torch.
"""

from __future__ import annotations

import json
import struct
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.formats import FORMATS
from nanhunt.errors import NanhuntError
from nanhunt.load.arrays import byte_size, mapped, ranges
from nanhunt.load.container import Container, RefusedTensor
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.source import Source
from nanhunt.load.tensor import BITS, Tensor
from nanhunt.load.wording import printable

LONGEST_HEADER = 100_000_000
"""The format's own limit."""

_DTYPES = {
    **{item.safetensors: name for name, item in FORMATS.items()},
    **{
        f"{short}{bits}": f"{name}{bits}"
        for short, name in (("I", "int"), ("U", "uint"))
        for bits in (8, 16, 32, 64)
    },
    "BOOL": "bool",
    "C64": "complex64",
}


def _is_safetensors(source: Source) -> bool:
    head = source.head
    if head[8:9] != b"{":
        return False
    # The length before the brace is little-endian: text has no zero in its last byte, an absurd length may.
    return head[7] == 0 or b'"data_offsets"' in head


def _open(source: Source, reading: Reading) -> Container:
    """The tensors in the order of their bytes, memory-mapped.

    Raises NanhuntError for a header that does not describe the file: truncated, overlapping, out of range.
    """
    header, start = _header(source)
    described = [
        (name, _entry(source, name, value)) for name, value in header.items() if name != "__metadata__"
    ]
    described.sort(key=lambda item: item[1][2:])  # by end too: empty tensors lie between others
    _check_layout(source, described, source.size - start)
    tensors: dict[str, Tensor] = {}
    refused: dict[str, RefusedTensor] = {}
    for name, (code, shape, begin, end) in described:
        if code in _DTYPES:
            tensors[name] = _tensor(source, name, code, shape, start + begin, end - begin)
        else:
            refused[name] = _unknown_dtype(source, name, code)
    return Container(source.file, tensors, "safetensors", refused)


def metadata(source: Source) -> dict[str, Any]:
    """The header's own remarks. Raises NanhuntError as reading does."""
    if not _is_safetensors(source):
        return {}
    found = _header(source)[0].get("__metadata__")
    return found if isinstance(found, dict) else {}


def _header(source: Source) -> tuple[dict[str, Any], int]:
    if source.size < 8:
        raise _damaged(source, f"it has {source.size} bytes: it is truncated or damaged")
    with source.open() as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > min(LONGEST_HEADER, source.size - 8):
            room = source.size - 8
            why = f"its header claims {length:,} bytes and {room:,} follow: it is truncated or damaged"
            raise _damaged(source, why)
        text = stream.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise _damaged(source, f"its header is not valid JSON ({printable(str(error))[:80]})") from None
    if not isinstance(header, dict):
        raise _damaged(source, "its header is not a JSON object")
    return header, 8 + length


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a name occurs twice")
    return names


def _entry(source: Source, name: str, value: object) -> tuple[str, tuple[int, ...], int, int]:
    """Dtype code, shape, begin and end of one tensor, checked for kind only."""
    fields: dict[str, Any] = value if isinstance(value, dict) else {}
    code, shape, span = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(code, str) or not _sizes(shape) or not _sizes(span) or len(span) != 2:
        raise _damaged(source, f"its header does not describe {printable(name)[:80]}")
    return code, tuple(shape), span[0], span[1]


def _sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def _check_layout(
    source: Source, described: list[tuple[str, tuple[str, tuple[int, ...], int, int]]], room: int
) -> None:
    last = 0
    for name, (_, _, begin, end) in described:
        where = f"{printable(name)[:80]} lies at bytes {begin:,} to {end:,}"
        if end > room:
            raise _damaged(source, f"{where} and {room:,} follow the header: it is truncated or damaged")
        if begin < last or end < begin:
            raise _damaged(source, f"{where}, which overlaps the tensor before it")
        last = end


def _tensor(source: Source, name: str, code: str, shape: tuple[int, ...], offset: int, length: int) -> Tensor:
    dtype = _DTYPES[code]
    stored = np.dtype(BITS.get(dtype, dtype)).newbyteorder("<")
    if byte_size(shape, stored.itemsize) != length:
        claimed = f"{printable(name)[:80]} is {dtype} {str(shape)[:200]} in {length:,} bytes"
        raise _damaged(source, claimed)

    def read() -> npt.NDArray[Any]:
        return mapped(source, offset, stored, shape)

    return Tensor(source.file, name, dtype, shape, read, ranges=ranges(source, offset, stored))


def _unknown_dtype(source: Source, name: str, code: str) -> RefusedTensor:
    message = f"{source.name}:{printable(name)} is {printable(code)[:40]}, which nanhunt cannot judge."
    return RefusedTensor(message, f"Convert it to one of {', '.join(_DTYPES)}.")


def _damaged(source: Source, why: str) -> NanhuntError:
    return NanhuntError(f"{source.name} is not a whole .safetensors: {why}.", "Copy or download it again.")


READER = FileReader("safetensors", (".safetensors",), _is_safetensors, _open)
