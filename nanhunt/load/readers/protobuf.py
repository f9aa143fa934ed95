"""The wire format of protocol buffers (protobuf.dev/programming-guides/encoding): fields, and where they lie."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

from nanhunt.load.readers.cursor import CutShort

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_FIXED = {_EIGHT: 8, _FOUR: 4}


@dataclass(frozen=True)
class Field:
    """One field of a message."""

    number: int
    """Its number in the .proto file."""
    value: int
    """Of a varint; 0 for the other kinds."""
    begin: int
    """Where its bytes begin in the file."""
    end: int
    packed: bool = False
    """Whether it is bytes, which may be several numbers, or a message."""


def fields(content: mmap.mmap, begin: int, end: int) -> Iterator[Field]:
    """The fields of the message in those bytes, in order. Raises CutShort for bytes that are no message."""
    at = begin
    while at < end:
        key, at = varint(content, at, end)
        value, start, kind = 0, at, key & 7
        if kind == _VARINT:
            value, at = varint(content, at, end)
        elif kind == _BYTES:
            length, start = varint(content, at, end)
            at = start + length
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise CutShort(f"a field at {start:,} is of no kind that is known")
        if at > end:
            raise CutShort(f"a field at {start:,} ends at {at:,}, behind the end of its message at {end:,}")
        yield Field(key >> 3, value, start, at, kind == _BYTES)


def varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """(a number in groups of seven bits, the position behind it), reduced to 64 bits as protobuf does.

    Raises CutShort.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise CutShort("a number is cut off")
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & ((1 << 64) - 1), at
    raise CutShort(f"a number at {at:,} has no end")


def varints(content: mmap.mmap, span: Field) -> Iterator[int]:
    """The numbers of a packed field, signed."""
    at = span.begin
    while at < span.end:
        value, at = varint(content, at, span.end)
        yield value - (1 << 64) if value >> 63 else value
