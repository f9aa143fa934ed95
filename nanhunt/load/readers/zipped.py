"""The zip archive under .npz and .pt: where an entry's bytes lie, and one error for every kind of damage."""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from nanhunt.errors import NanhuntError
from nanhunt.load.source import Source

MAGIC = b"PK"
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_DEFLATE_RATIO = 1032
"""zlib's own bound on how much one byte can stand for."""


@contextmanager
def whole_zip(source: Source) -> Iterator[None]:
    """Turn what zipfile and its decompressors raise on damaged bytes into a NanhuntError."""
    try:
        yield
    except (
        BadZipFile, zlib.error, EOFError, OSError, LookupError, NotImplementedError,
        RuntimeError, ValueError, OverflowError, struct.error,
    ) as error:  # fmt: skip
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise  # the disk that is unpacked to, not the archive
        hint = "Copy or write it again: a zip's table of contents is at its end, so a cut file has none."
        raise NanhuntError(
            f"{source.name} is a zip archive (.npz, .pt) that is truncated or damaged.", hint
        ) from None


def entries(source: Source) -> list[ZipInfo]:
    """The archive's table of contents; of two entries with one name the last, as zipfile has it.

    Raises NanhuntError for a damaged archive, and for one whose entries share bytes: so a few of them become many.
    """
    with source.open() as stream, whole_zip(source), ZipFile(stream) as archive:
        found = archive.infolist()
        names = {entry.filename: entry for entry in found}
    if sum(entry.compress_size for entry in found) > source.size:
        message = f"{source.name} is a zip archive whose entries claim more bytes than it has: they overlap."
        raise NanhuntError(message, "Write it again.")
    return list(names.values())


@contextmanager
def opened(source: Source, entry: ZipInfo) -> Iterator[IO[bytes]]:
    """One entry's plain bytes, decompressed as they are read and checked at the end."""
    with source.open() as stream, whole_zip(source), ZipFile(stream) as archive, archive.open(entry) as plain:
        yield plain


def offsets(source: Source, wanted: Iterable[ZipInfo]) -> dict[str, int | None]:
    """Where in the file the bytes of each entry lie, so that they can be mapped; None where they are compressed.

    Raises BadZipFile where an entry lies beyond the end of the file.
    """
    found: dict[str, int | None] = {}
    with source.open() as stream, whole_zip(source):
        for entry in wanted:
            found[entry.filename] = None
            if entry.compress_type == ZIP_STORED:
                stream.seek(entry.header_offset)
                magic, name_length, extra_length = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
                start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
                if magic != b"PK\x03\x04" or start + entry.file_size > source.size:
                    raise BadZipFile(f"{entry.filename} does not lie in the file")
                found[entry.filename] = start
    return found


def problem(entry: ZipInfo) -> tuple[str, str] | None:
    """What keeps an entry from being read, and the way out; None for what NumPy and torch write."""
    if entry.flag_bits & 1:
        return "is encrypted", "Store it without a password."
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        # zipfile unpacks the other methods without bound on memory.
        return f"is compressed by method {entry.compress_type}", "Write it with numpy.savez_compressed."
    packed = entry.compress_size
    most = packed if entry.compress_type == ZIP_STORED else _DEFLATE_RATIO * (packed + 64)
    if entry.file_size > most:
        return (
            f"claims {entry.file_size:,} bytes, more than its {packed:,} packed bytes can hold",
            "Write it again.",
        )
    return None
