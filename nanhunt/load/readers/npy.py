""".npy: a magic string, a Python literal and the bytes (numpy.org/doc/stable, numpy.lib.format)."""

from __future__ import annotations

import ast
import contextlib
import re
import struct
import warnings
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from nanhunt.dtypes.formats import FORMATS
from nanhunt.errors import NanhuntError
from nanhunt.load.arrays import Order, byte_size, mapped, ranges
from nanhunt.load.container import Container, NotNumbers, RefusedTensor
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.source import Source
from nanhunt.load.tensor import BITS, FLOATING, Tensor
from nanhunt.load.wording import printable

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 1 << 16
"""The literal is parsed, so it is bounded; real ones have about 100 characters."""
_TRIES = 20
"""Times that a header is parsed where Python fails by its own fault."""

_CODES = {
    **{f"f{item.bytes}": name for name, item in FORMATS.items() if item.in_numpy},
    **{
        f"{sign}{size}": f"{name}{8 * size}"
        for sign, name in (("i", "int"), ("u", "uint"))
        for size in (1, 2, 4, 8)
    },
    "b1": "bool",
    "c8": "complex64",
    "c16": "complex128",
}
_ML_DTYPES = {"<f1": "float8_e5m2", "|f1": "float8_e5m2"}
"""The only type of ml_dtypes that calls itself a float; the others are raw bytes, unless spelled out."""
_TEXT = {"U": "text", "S": "text", "a": "text", "M": "dates", "m": "time spans", "O": "Python objects"}


@dataclass(frozen=True)
class Header:
    """What stands before the bytes."""

    dtype: str
    """torch's spelling."""
    stored: np.dtype[Any]
    """How the bytes are read: byte order included, bits for the formats NumPy lacks."""
    shape: tuple[int, ...]
    order: Order
    offset: int
    """Of the first value, from the start of the .npy."""


def _open(source: Source, reading: Reading) -> Container:
    """The one unnamed tensor of a .npy file, memory-mapped.

    Raises NanhuntError for a damaged or truncated file and for dtypes that are not numbers.
    """
    with source.open() as stream:
        header = read_header(stream, source.size, source.name, reading.stored_dtype)

    def read() -> np.ndarray[Any, Any]:
        return mapped(source, header.offset, header.stored, header.shape, header.order)

    apart = ranges(source, header.offset, header.stored) if header.order == "C" else None
    tensor = Tensor(source.file, "", header.dtype, header.shape, read, ranges=apart)
    return Container(source.file, {"": tensor}, "npy")


def read_header(stream: IO[bytes], size: int, name: str, stored_dtype: str | None) -> Header:
    """Parse and check the header of a .npy of ``size`` bytes at the start of ``stream``.

    ``name`` is how messages call it. The claimed shape is compared with ``size`` before anything is mapped.
    Raises NanhuntError for a header that is none, and for a file that is shorter than it says.
    """
    text, offset = _header_text(stream, size, name)
    descr, fortran, shape = _fields(text, name)
    dtype, stored = dtype_of(descr, name, stored_dtype)
    needed = byte_size(shape, stored.itemsize)
    if needed is None or needed > size - offset:
        raise _too_short(name, dtype, shape, needed, size - offset)
    return Header(dtype, stored, shape, "F" if fortran else "C", offset)


def _header_text(stream: IO[bytes], size: int, name: str) -> tuple[str, int]:
    start = stream.read(12)
    if len(start) < 12 or start[:6] != MAGIC:
        raise _damaged(name, "its header is cut off")
    if start[6] not in (1, 2, 3) or start[7]:
        hint = "Write it with numpy.save of a released NumPy."
        raise NanhuntError(
            f"{name} is a .npy of version {start[6]}.{start[7]}; there are 1.0, 2.0 and 3.0.", hint
        )
    width = 2 if start[6] == 1 else 4
    (length,) = struct.unpack_from("<H" if width == 2 else "<I", start, 8)
    offset = 8 + width + length
    if offset > size or length > LONGEST_HEADER:
        raise _damaged(name, f"its header claims {length:,} bytes")
    body = start[8 + width :] + stream.read(max(0, offset - 12))
    return body[:length].decode("utf-8" if start[6] == 3 else "latin-1", "replace"), offset


def _fields(text: str, name: str) -> tuple[object, bool, tuple[int, ...]]:
    # Python 2 wrote sizes as 10L.
    text = re.sub(r"(?<=[0-9])L(?=[,)\s])", "", text.strip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stray backslash warns, and is judged below anyway
            fields = _literal(text)
            descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    except (ValueError, TypeError, LookupError, SyntaxError, MemoryError, RecursionError):
        raise _damaged(name, "its header cannot be parsed") from None
    sizes = isinstance(shape, tuple) and all(type(size) is int and 0 <= size < 1 << 63 for size in shape)
    if not sizes or not isinstance(fortran, bool):
        raise _damaged(name, "its header gives no shape")
    return descr, fortran, shape


def _literal(text: str) -> Any:
    """As ``ast.literal_eval``, where another thread parses code too.

    CPython before 3.11.8 and 3.12.2 adds up the depths of all threads and takes the sum for its own fault
    (github.com/python/cpython/issues/106905): one that imports torch meanwhile is enough.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(SystemError):
            return ast.literal_eval(text)
    return ast.literal_eval(text)


def dtype_of(descr: object, name: str, stored_dtype: str | None) -> tuple[str, np.dtype[Any]]:
    """torch's spelling of a dtype as .npy headers spell it, and how its bytes are read.

    Raises RefusedTensor for what is no number per element, NotNumbers for text and objects.
    """
    if isinstance(descr, list):
        hint = "Save one field: numpy.save(FILE, array['FIELD'])."
        raise RefusedTensor(
            f"{name} holds records ({_field_names(descr)}), not one number per element.", hint
        )
    text = descr if isinstance(descr, str) else ""
    name_of_bits = _ML_DTYPES.get(text, text)
    if name_of_bits in BITS:
        return name_of_bits, np.dtype(BITS[name_of_bits])
    parts = re.fullmatch(r"([<>|=]?)([A-Za-z])([0-9]{0,9})(\[.*\])?", text)
    if parts is None:
        raise _damaged(name, f"its dtype is {printable(repr(descr)[:60])}")
    order, letter, width = parts[1], parts[2], parts[3]
    if letter + width in _CODES:
        return _CODES[letter + width], np.dtype(f"{order}{letter}{width}")
    if letter == "V":
        return _void(int(width or 0), name, stored_dtype)
    raise _unusable(letter, text, name)


def _field_names(descr: list[object]) -> str:
    names = [str(field[0]) for field in descr if isinstance(field, tuple) and field]
    return printable(", ".join(names))[:80]


def _void(width: int, name: str, stored_dtype: str | None) -> tuple[str, np.dtype[Any]]:
    """The bits of a format NumPy has no name for: bfloat16 and float8 come out of numpy.save as raw bytes.

    Their header says no order of bytes; they are read as those of a little-endian machine.
    """
    fitting = [dtype for dtype in FLOATING if FORMATS[dtype].bytes == width]
    if stored_dtype in fitting:
        return stored_dtype, np.dtype(f"<u{width}" if stored_dtype in BITS else f"<f{width}")
    if not fitting:
        raise RefusedTensor(
            f"{name} holds raw pieces of {width:,} bytes (|V{width}), not numbers.", "Save numbers."
        )
    hint = "Say which: " + " or ".join(f"--stored-dtype {dtype}" for dtype in fitting) + "."
    if stored_dtype is not None:
        message = f"{name} holds {width}-byte values (|V{width}), which cannot be {stored_dtype}."
        raise RefusedTensor(message, hint)
    message = f"{name} holds {width}-byte values whose format the file does not say (|V{width})"
    raise RefusedTensor(f"{message}: bfloat16 and float8 are written like that.", hint)


def _unusable(letter: str, descr: str, name: str) -> NanhuntError:
    if letter in _TEXT:
        reading = "; pickled objects are never loaded" if letter == "O" else ""
        hint = "Save the numbers alone: numpy.save(FILE, numpy.asarray(values, dtype='float32'))."
        return NotNumbers(f"{name} holds {_TEXT[letter]} ({descr}), not numbers{reading}.", hint)
    if letter in "fcg":
        hint = "Save it as float64: numpy.save(FILE, array.astype('float64'))."
        return RefusedTensor(
            f"{name} holds extended precision ({descr}), which torch has no format for.", hint
        )
    return _damaged(name, f"its dtype is {descr}")


def _too_short(name: str, dtype: str, shape: tuple[int, ...], needed: int | None, room: int) -> NanhuntError:
    claimed = f"its header claims {dtype} {printable(str(shape))[:200]}"
    if needed is None:
        return _damaged(name, f"{claimed}, more than any array holds")
    return _damaged(
        name, f"{claimed}, {needed:,} bytes, and {room:,} follow: it is truncated or its header is wrong"
    )


def _damaged(name: str, why: str) -> NanhuntError:
    return NanhuntError(f"{name} is not a whole .npy: {why}.", "Write or copy it again.")


READER = FileReader("npy", (".npy",), lambda source: source.head.startswith(MAGIC), _open)
