"""Headers of binary formats read forward, in bounds: whatever a damaged one claims, no more is read than is there."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import IO, Any, Literal

LONGEST = 1 << 26
"""Bytes taken into memory at once: names and lists of sizes are shorter by far."""

ByteOrder = Literal["<", ">"]
"""As struct and NumPy spell it."""


class CutShort(Exception):  # noqa: N818 - becomes a NanhuntError that names the file
    """The file ends, or says that it holds, before something that its header promises."""


@dataclass
class Cursor:
    """A place in a stream that is known to end."""

    stream: IO[bytes]
    end: int
    """Position behind the last byte that may be read."""
    order: ByteOrder = "<"
    at: int = 0
    reads: int = 0
    """How often bytes were taken."""

    def take(self, count: int) -> bytes:
        """So many bytes. Raises CutShort where they are not there, or are too many to be a header's."""
        if not 0 <= count <= min(self.end - self.at, LONGEST):
            raise CutShort(f"it claims {count:,} bytes at {self.at:,}, and ends at {self.end:,}")
        found = self.stream.read(count)
        if len(found) != count:
            raise CutShort("it became shorter while it was read")
        self.at += count
        self.reads += 1
        return found

    def skip(self, count: int) -> int:
        """Passes over so many bytes; the position of the first of them. Raises CutShort as ``take`` does."""
        begin = self.at
        if not 0 <= count <= self.end - begin:
            raise CutShort(f"it claims {count:,} bytes at {begin:,}, and ends at {self.end:,}")
        self.at += count
        self.stream.seek(count, os.SEEK_CUR)
        return begin

    def number(self, code: str) -> Any:
        """One number of struct's code: "I", "q", "f"."""
        return struct.unpack(self.order + code, self.take(struct.calcsize(self.order + code)))[0]
