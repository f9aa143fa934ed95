""".gguf: the models of llama.cpp, a header and the bytes behind it (ggml-org/ggml, docs/gguf.md), mapped.

Quantized blocks are judged by their scales, as they lie in each block (ggml/src/ggml-common.h): a block whose scale is
not finite gives no finite value, and a quantized number itself cannot be anything but a small integer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.errors import NanhuntError
from nanhunt.load.arrays import byte_size, mapped
from nanhunt.load.container import Container, RefusedTensor
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.readers.cursor import ByteOrder, Cursor, CutShort
from nanhunt.load.source import Source
from nanhunt.load.tensor import BITS, Tensor
from nanhunt.load.wording import printable

MAGIC = b"GGUF"
_PLAIN = {
    0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64",
    30: "bfloat16",
}  # fmt: skip
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of the numbers that the metadata can hold, by type."""
_TEXT, _LIST = 8, 9
_DEEPEST = 4
"""Levels of lists in lists."""


@dataclass(frozen=True)
class Block:
    """How one quantized type packs its values."""

    name: str
    values: int
    """In a block."""
    size: int
    """Bytes of a block."""
    at: int = 0
    """Position of its scales, in bytes."""
    count: int = 1
    """Of scales; the second is of the block's minimum."""
    dtype: str = "float16"
    """Of the scales; "e8m0" for exponents alone, "nibbles" for a float16 in four pieces."""
    scales: str = "signed"
    """"positive" where a block is divided by its largest magnitude; "" where minima, of any sign, lie among them."""


_BLOCKS = {
    2: Block("Q4_0", 32, 18),
    3: Block("Q4_1", 32, 20, count=2, scales=""),
    6: Block("Q5_0", 32, 22),
    7: Block("Q5_1", 32, 24, count=2, scales=""),
    8: Block("Q8_0", 32, 34, scales="positive"),
    9: Block("Q8_1", 32, 36, count=2, scales=""),
    10: Block("Q2_K", 256, 84, 80, 2, scales=""),
    11: Block("Q3_K", 256, 110, 108),
    12: Block("Q4_K", 256, 144, count=2, scales=""),
    13: Block("Q5_K", 256, 176, count=2, scales=""),
    14: Block("Q6_K", 256, 210, 208),
    15: Block("Q8_K", 256, 292, dtype="float32"),
    16: Block("IQ2_XXS", 256, 66),
    17: Block("IQ2_XS", 256, 74),
    18: Block("IQ3_XXS", 256, 98),
    19: Block("IQ1_S", 256, 50),
    20: Block("IQ4_NL", 32, 18),
    21: Block("IQ3_S", 256, 110),
    22: Block("IQ2_S", 256, 82),
    23: Block("IQ4_XS", 256, 136),
    29: Block("IQ1_M", 256, 56, 48, 4, "nibbles"),
    34: Block("TQ1_0", 256, 54, 52),
    35: Block("TQ2_0", 256, 66, 64),
    39: Block("MXFP4", 32, 17, dtype="e8m0"),
    40: Block("NVFP4", 64, 36, count=4, dtype="float8_e4m3fn", scales="positive"),
    41: Block("Q1_0", 128, 18),
}


@dataclass(frozen=True)
class _Entry:
    """A tensor as the header has it."""

    name: str
    shape: tuple[int, ...]
    """Outermost dimension first, as NumPy has it; the header has it the other way round."""
    kind: int
    offset: int
    """From where the bytes begin."""


def _open(source: Source, reading: Reading) -> Container:
    """The tensors in the header's order, memory-mapped. Raises NanhuntError for what is not a whole .gguf."""
    try:
        with source.open() as stream:
            cursor = Cursor(stream, source.size)
            entries, begin = _header(cursor)
    except CutShort as error:
        raise _damaged(source, str(error)) from None
    tensors: dict[str, Tensor] = {}
    refused: dict[str, RefusedTensor] = {}
    for entry in entries:
        if entry.kind in _PLAIN:
            tensors[entry.name] = _plain(source, entry, begin, cursor.order)
        elif entry.kind in _BLOCKS:
            tensors[entry.name] = _scales(source, entry, begin, cursor.order)
        else:
            message = f"{source.name}:{printable(entry.name)} is of ggml's type {entry.kind}, not known here."
            refused[entry.name] = RefusedTensor(message, "Check the .safetensors it was made from.")
    return Container(source.file, tensors, "gguf", refused)


def _header(cursor: Cursor) -> tuple[list[_Entry], int]:
    """(the tensors, where their bytes begin)."""
    cursor.take(len(MAGIC))
    version = cursor.number("I")
    if version & 0xFFFF == 0:  # a big-endian file says so nowhere else
        cursor.order, version = ">", int.from_bytes(version.to_bytes(4, "little"), "big")
    if version not in (2, 3):
        raise CutShort(f"it is of version {version:,}; there are 2 and 3")
    tensors, pairs = cursor.number("Q"), cursor.number("Q")
    alignment = 32
    for _ in range(pairs):
        key, kind = _text(cursor), cursor.number("I")
        if key == "general.alignment" and kind == 4:
            alignment = cursor.number("I")
        else:
            _skip(cursor, kind, 0)
    entries = [_entry(cursor) for _ in range(tensors)]
    if not 0 < alignment <= 1 << 20:
        raise CutShort(f"it aligns its tensors to {alignment:,} bytes")
    return entries, -(-cursor.at // alignment) * alignment


def _text(cursor: Cursor) -> str:
    return cursor.take(cursor.number("Q")).decode("utf-8", "replace")


def _skip(cursor: Cursor, kind: int, depth: int) -> None:
    """Passes over one value of the metadata."""
    if kind in _SIZES:
        cursor.skip(_SIZES[kind])
    elif kind == _TEXT:
        cursor.skip(cursor.number("Q"))
    elif kind == _LIST and depth < _DEEPEST:
        inner, count = cursor.number("I"), cursor.number("Q")
        if inner in _SIZES:
            cursor.skip(_SIZES[inner] * count)
            return
        for _ in range(count):
            _skip(cursor, inner, depth + 1)
    else:
        raise CutShort(f"its metadata hold a value of type {kind:,}")


def _entry(cursor: Cursor) -> _Entry:
    name, dimensions = _text(cursor), cursor.number("I")
    if dimensions > 32:
        raise CutShort(f"{printable(name)[:80]} has {dimensions:,} dimensions")
    shape = [cursor.number("Q") for _ in range(dimensions)]
    return _Entry(name, tuple(reversed(shape)), cursor.number("I"), cursor.number("Q"))


def _plain(source: Source, entry: _Entry, begin: int, order: ByteOrder) -> Tensor:
    dtype = _PLAIN[entry.kind]
    stored = np.dtype(BITS.get(dtype, dtype)).newbyteorder(order)
    _check(source, entry, begin, byte_size(entry.shape, stored.itemsize))
    return Tensor(
        source.file, entry.name, dtype, entry.shape,
        lambda: mapped(source, begin + entry.offset, stored, entry.shape),
    )  # fmt: skip


def _scales(source: Source, entry: _Entry, begin: int, order: ByteOrder) -> Tensor:
    """The scales of a quantized tensor: its own shape, with blocks (and their scales) instead of the last dimension."""
    block = _BLOCKS[entry.kind]
    *outer, width = entry.shape or (0,)
    if width % block.values or byte_size(entry.shape, 1) is None:
        raise _damaged(source, f"{printable(entry.name)[:80]} is {block.name} {str(entry.shape)[:80]}")
    blocks = (*outer, width // block.values)
    _check(source, entry, begin, math.prod(blocks) * block.size)
    several = block.count > 1 and block.dtype != "nibbles"
    shape = (*blocks, block.count) if several else blocks
    dtype = {"e8m0": "float32", "nibbles": "float16"}.get(block.dtype, block.dtype)

    def read() -> npt.NDArray[Any]:
        whole = mapped(source, begin + entry.offset, np.dtype(np.uint8), (math.prod(blocks), block.size))
        return _values(block, whole, order).reshape(shape)

    last = ", the last dimension its scale and its minimum's" if block.count == 2 else ""
    note = f"{block.name}: judged by the scales of its blocks of {block.values} values{last}"
    return Tensor(source.file, entry.name, dtype, shape, read, note=note, scales=block.scales)


def _values(block: Block, whole: npt.NDArray[Any], order: ByteOrder) -> npt.NDArray[Any]:
    """The scales of all blocks, a view of the mapped bytes where they are numbers that NumPy can hold."""
    if block.dtype == "e8m0":  # 2^(e - 127), and 255 is NaN (Open Compute Project, MX formats 1.0)
        exponents = whole[:, 0].astype(np.uint32)
        mark = np.where((exponents == 0) | (exponents == 255), np.uint32(1 << 22), np.uint32(0))
        return (exponents << 23 | mark).view(np.float32)
    width = {"float32": 4, "float8_e4m3fn": 1}.get(block.dtype, 2)
    stored = {"float32": "f4", "float8_e4m3fn": "u1", "nibbles": "u2"}.get(block.dtype, "f2")
    where = whole[:, block.at : block.at + block.count * width]
    values = where.view(np.dtype(order + stored))
    if block.dtype == "nibbles":  # the top four bits of each of the four numbers
        shifts = np.array([12, 8, 4, 0], np.uint16)
        masks = np.array([0xF, 0xF0, 0xF00, 0xF000], np.uint16)
        joined: npt.NDArray[Any] = np.bitwise_or.reduce((values >> shifts) & masks, axis=1)
        return joined.astype(np.uint16).view(np.float16)
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _check(source: Source, entry: _Entry, begin: int, size: int | None) -> None:
    room = source.size - begin - entry.offset
    if size is None or size > room:
        claimed = "more than any array holds" if size is None else f"{size:,} bytes"
        why = f"{printable(entry.name)[:80]} {str(entry.shape)[:80]} claims {claimed}, and {max(0, room):,} follow"
        raise _damaged(source, why)


def _damaged(source: Source, why: str) -> NanhuntError:
    return NanhuntError(f"{source.name} is not a whole .gguf: {why}.", "Copy or download it again.")


READER = FileReader("gguf", (".gguf",), lambda source: source.head.startswith(MAGIC), _open)
