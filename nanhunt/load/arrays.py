"""Bytes in a file become an array: mapped as they lie, or through a temporary file where packed or swapped.

Nothing here holds a whole tensor in memory.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.convert import native
from nanhunt.errors import NanhuntError
from nanhunt.load.source import Location, Source

CHUNK = 1 << 20
"""Bytes in memory at once while unpacking or swapping."""
MOST_DIMENSIONS = 32
"""NumPy 1's limit; torch has 64, and real tensors have single digits."""
Order = Literal["C", "F"]


def byte_size(shape: tuple[int, ...], itemsize: int) -> int | None:
    """Bytes of an array, in exact arithmetic; None when no array can have that shape."""
    if len(shape) > MOST_DIMENSIONS:
        return None
    # An empty axis makes the product 0, but NumPy still wants the others to fit.
    widest = math.prod(size for size in shape if size) * itemsize
    return math.prod(shape) * itemsize if widest < 1 << 62 else None


def mapped(
    source: Source, offset: int, stored: np.dtype[Any], shape: tuple[int, ...], order: Order = "C"
) -> npt.NDArray[Any]:
    """The array at ``offset`` bytes, mapped copy-on-write: never written back, and torch accepts it silently.

    ``stored`` may be byte-swapped; the result never is. It may be unaligned where the file's offsets are.
    Raises NanhuntError when the file has changed since it was opened.
    """
    if 0 in shape:
        return np.empty(shape, stored.newbyteorder("="), order)
    if source.remote is not None:
        size = math.prod(shape) * stored.itemsize
        flat = np.frombuffer(source.remote.read((source.start or 0) + offset, size), stored)
        return native(flat).reshape(shape, order=order)
    with source.open() as stream:
        try:
            flat = _map(stream, stored, math.prod(shape), (source.start or 0) + offset)
        except OSError as error:
            if error.errno == errno.EMFILE:
                hint = "Raise the limit first: ulimit -n 65536"
                raise NanhuntError(f"{source.name} has more tensors than files may be open.", hint) from None
            raise
        except ValueError:
            hint = "Copy the file, or wait until the program that writes it has finished."
            raise NanhuntError(f"{source.name} became shorter while it was read.", hint) from None
    return (flat if stored.isnative else _swapped(source, flat)).reshape(shape, order=order)


@dataclass(frozen=True)
class Ranges:
    """Values one after the other in an object far away: any of them can be had without the others."""

    source: Source
    offset: int
    """Of the first, in bytes."""
    stored: np.dtype[Any]

    def __call__(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Values ``start`` to ``stop`` - 1, shape (stop - start,). Raises NanhuntError as ``mapped`` does."""
        return mapped(self.source, self.offset + start * self.stored.itemsize, self.stored, (stop - start,))


def ranges(source: Source, offset: int, stored: np.dtype[Any]) -> Ranges | None:
    """Of a tensor whose values lie in C order from ``offset`` on; None for a file here, which is mapped."""
    return Ranges(source, offset, stored) if source.remote is not None else None


def unpacked(
    source: Location,
    copy: Callable[[IO[bytes]], None],
    stored: np.dtype[Any],
    shape: tuple[int, ...],
    order: Order = "C",
) -> npt.NDArray[Any]:
    """The array whose bytes ``copy`` writes into a temporary file, mapped.

    Raises NanhuntError when the temporary folder has no room, or ``copy`` wrote too little.
    """
    if 0 in shape:
        return np.empty(shape, stored.newbyteorder("="), order)
    count = math.prod(shape)
    flat = _through_file(source, count * stored.itemsize, copy, stored)
    if flat.size != count:
        raise NanhuntError(f"{source.name} is damaged: it unpacks to less than it claims.", "Write it again.")
    return (flat if stored.isnative else _swapped(source, flat)).reshape(shape, order=order)


def spooled_values(
    source: Location, copy: Callable[[IO[bytes]], None], stored: np.dtype[Any]
) -> npt.NDArray[Any]:
    """As ``unpacked``, of as many values as ``copy`` writes, flat: for formats that do not say how many there are."""
    return _through_file(source, 0, copy, stored)


MOST_AT_ONCE = 1 << 26
"""Bytes of whole chunks that are taken into memory so that none is unpacked twice."""


def slices(shape: tuple[int, ...], chunk: int, itemsize: int) -> Iterator[tuple[int | slice, ...]]:
    """Indices of parts that follow each other in C order: whole chunks of the first dimension where those are small.

    ``chunk``: rows that are packed together; at least 1.
    """
    if not shape:
        yield ()
        return
    row = itemsize * math.prod(shape[1:])
    if row > MOST_AT_ONCE and len(shape) > 1:
        for index in range(shape[0]):
            yield from ((index, *rest) for rest in slices(shape[1:], 1, itemsize))
        return
    step = max(1, CHUNK // max(1, row), chunk if chunk * row <= MOST_AT_ONCE else 1)
    for first in range(0, shape[0], step):
        yield (slice(first, min(first + step, shape[0])),)


SHARED = 1 << 28
"""Bytes of a file that small tensors share one mapping of: each mapping holds a descriptor, and processes have few."""
_mappings: WeakValueDictionary[tuple[int, ...], mmap.mmap] = WeakValueDictionary()
"""By file (device, number, time, size) and first byte; gone with the last array in them."""


def _map(stream: IO[bytes], dtype: np.dtype[Any], count: int, offset: int) -> npt.NDArray[Any]:
    """``count`` values from ``offset`` bytes on. Raises ValueError where the file ends before."""
    file, size = os.fstat(stream.fileno()), count * dtype.itemsize
    if offset + size > file.st_size:
        raise ValueError("the file ends before")
    large = size > SHARED
    start = offset - offset % (mmap.ALLOCATIONGRANULARITY if large else SHARED)
    end = (
        offset + size if large else min(file.st_size, start + 2 * SHARED)
    )  # across the border of the next one
    key = file.st_dev, file.st_ino, file.st_mtime_ns, file.st_size, start, end
    pages = _mappings.get(key)
    if pages is None:
        # mmap itself and not np.memmap: that one resolves paths and keeps a subclass with slow slices.
        pages = mmap.mmap(stream.fileno(), end - start, access=mmap.ACCESS_COPY, offset=start)
        _mappings[key] = pages
    return np.ndarray((count,), dtype, pages, offset - start)


def release(values: object) -> None:
    """Gives the memory of values back that a reader has mapped; they are read anew when they are asked for.

    For arrays of readers only, which nobody writes to: what is written to a private mapping would be lost. What is
    a copy stays as it is.
    """
    if not isinstance(values, np.ndarray) or not values.flags.c_contiguous:
        return
    pages: Any = values
    while pages is not None and not isinstance(pages, mmap.mmap):
        pages = getattr(pages, "base", None)
    if pages is not None and values.size and hasattr(mmap, "MADV_DONTNEED"):
        first = values.ctypes.data - np.frombuffer(pages, np.uint8).ctypes.data
        start = first // mmap.PAGESIZE * mmap.PAGESIZE
        pages.madvise(mmap.MADV_DONTNEED, start, first + values.nbytes - start)


def _swapped(source: Location, flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
    native = flat.dtype.newbyteorder("=")
    step = CHUNK // native.itemsize

    def copy(stream: IO[bytes]) -> None:
        for start in range(0, flat.size, step):
            stream.write(flat[start : start + step].astype(native).data)

    return _through_file(source, flat.nbytes, copy, native)


def _through_file(
    source: Location, needed: int, copy: Callable[[IO[bytes]], None], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    # Loaded here because most files are mapped as they lie.
    import shutil
    import tempfile

    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed > free:
        hint = "Set TMPDIR to a folder with room, or store the tensor uncompressed, in native byte order."
        raise NanhuntError(
            f"{source.name} needs {needed:,} bytes in {folder}, which has {free:,} free.", hint
        )
    with tempfile.TemporaryFile() as stream:
        try:
            copy(stream)
            stream.flush()
        except OSError as error:
            if error.errno is None:  # not the system's: what reads the format says so of damaged data
                raise
            hint = "Set TMPDIR to a folder with room."
            reason = error.strerror or "the system refused it"
            raise NanhuntError(
                f"{source.name} could not be unpacked into {folder}: {reason}.", hint
            ) from None
        written = os.fstat(stream.fileno()).st_size // dtype.itemsize
        return _map(stream, dtype, written, 0) if written else np.empty(0, dtype)
