"""Bytes that readers can seek in: a regular file, or standard input spooled to an unnamed temporary file."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nanhunt.errors import NanhuntError
from nanhunt.load import listing
from nanhunt.load.listing import STDIN, is_folder, is_url
from nanhunt.load.wording import READABLE, did_you_mean, printable

if TYPE_CHECKING:
    from zipfile import ZipInfo

    from _typeshed import WriteableBuffer as Buffer

    from nanhunt.load.remote import Remote

HEAD = 4096
"""Bytes by which formats are told."""


class Unnamed:
    """A file without a name, closed when the last tensor that needs it has gone."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.descriptor = os.dup(stream.fileno())
        weakref.finalize(self, os.close, self.descriptor)


@dataclass(frozen=True)
class Source:
    """A regular, non-empty file that could be opened."""

    file: str
    """The path as the user wrote it, "-" for standard input."""
    size: int
    """In bytes."""
    unnamed: Unnamed | None = None
    """All bytes, of standard input or of what could not be fetched by ranges."""
    remote: Remote | None = None
    """Where it is fetched from, for a URL."""
    start: int | None = None
    """Where it begins, for a part of a file: some formats keep whole files of others inside of one."""

    @property
    def name(self) -> str:
        """How messages name it."""
        return "standard input" if self.file == STDIN else printable(self.file)

    @property
    def path(self) -> str | None:
        """A path under which another library can open it; None where unnamed files have none."""
        unnamed = self.unnamed or (self.remote.copy if self.remote else None)
        if unnamed is None:
            return self.file
        path = Path(f"/dev/fd/{unnamed.descriptor}")
        return str(path) if path.exists() else None

    def open(self) -> IO[bytes]:
        """A stream at the first byte, for the caller to close.

        Raises NanhuntError when the file has gone or may not be read.
        """
        whole = self._whole()
        return whole if self.start is None else io.BufferedReader(_Window(whole, self.start, self.size))

    def _whole(self) -> IO[bytes]:
        if self.remote is not None:
            return self.remote.open()
        if self.unnamed is not None:
            stream = os.fdopen(os.dup(self.unnamed.descriptor), "rb")
            stream.seek(0)
            return stream
        try:
            return Path(self.file).open("rb")
        except OSError as error:
            raise cannot_read(self.file, error) from None

    @cached_property
    def head(self) -> bytes:
        """The first ``HEAD`` bytes, or fewer. Raises NanhuntError where it cannot be read."""
        with self.open() as stream:
            try:
                return stream.read(HEAD)
            except OSError as error:
                raise cannot_read(self.file, error) from None

    @cached_property
    def archive(self) -> tuple[ZipInfo, ...] | None:
        """The table of contents of a zip; None for anything else. Raises NanhuntError when it is damaged."""
        if not self.head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return None
        from nanhunt.load.readers import zipped  # brings zipfile and its decompressors

        return tuple(zipped.entries(self))


class _Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, stream: IO[bytes], start: int, size: int) -> None:
        self._stream, self._start, self._size, self._at = stream, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def close(self) -> None:
        self._stream.close()
        super().close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        self._stream.seek(self._start + self._at)
        taken = self._stream.read(min(len(view), max(0, self._size - self._at)))
        view[: len(taken)] = taken
        self._at += len(taken)
        return len(taken)


@dataclass(frozen=True)
class Folder:
    """A folder that may be read: some formats are one."""

    file: str
    """The path or URL as the user wrote it."""

    @property
    def name(self) -> str:
        """How messages name it."""
        return printable(self.file)

    @cached_property
    def names(self) -> frozenset[str]:
        """What lies in it, hidden files too. Raises NanhuntError where it may not be looked into."""
        try:
            return frozenset(each.name for each in listing.entries(self.file))
        except OSError as error:
            raise cannot_read(self.file, error) from None

    def path(self, name: str) -> str:
        """The path of something in it."""
        return listing.inside(self.file, name)


Location = Source | Folder


def open_location(path: str) -> Location:
    """The file or folder at ``path``, or standard input for "-". Raises as ``open_source`` does."""
    if path not in ("", STDIN) and is_folder(path):
        return Folder(path)
    return open_source(path)


def open_source(path: str) -> Source:
    """The bytes at ``path``, or of standard input for "-".

    Raises NanhuntError for what is missing, a folder, empty, not a regular file, or not allowed.
    """
    if not path:
        raise NanhuntError("A path is empty.", "Name a file, or - for standard input.")
    if is_url(path):
        from nanhunt.load.remote import open_url

        remote = open_url(path)
        whole = None if remote.by_ranges or not remote.size else remote.copy
        source = Source(path, remote.size, whole, None if whole else remote)
    else:
        source = _standard_input() if path == STDIN else _regular_file(path)
    if source.size == 0:
        hint = "The program that wrote it stopped early: write it again."
        raise NanhuntError(f"{source.name} is empty (0 bytes).", hint)
    return source


def _regular_file(path: str) -> Source:
    try:
        info = Path(path).stat()
    except (OSError, ValueError) as error:
        raise cannot_read(path, error) from None
    if stat.S_ISDIR(info.st_mode):
        raise folder_refused(path)
    if not stat.S_ISREG(info.st_mode):
        hint = f"Readers need to seek; pipe its bytes instead: nanhunt check - < {printable(path)}"
        raise NanhuntError(f"{printable(path)} is {_kind(info.st_mode)}, not a file.", hint)
    return Source(path, info.st_size)


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def folder_refused(path: str) -> NanhuntError:
    """What to say about a folder where a file, or a folder that is a format, is needed."""
    if not os.access(path, os.R_OK | os.X_OK):
        return cannot_read(path, PermissionError(errno.EACCES, ""))
    return NanhuntError(f"{printable(path)} is a folder, and a file is needed here.", "Name a file in it.")


def cannot_read(path: str, error: OSError | ValueError) -> NanhuntError:
    """The user's words for an operating system's refusal to open or read ``path``."""
    name = printable(path)
    code = error.errno if isinstance(error, OSError) else errno.ENOENT
    if code in (errno.ENOENT, errno.ENOTDIR):
        return _missing(path)
    if code in (errno.EACCES, errno.EPERM):
        return NanhuntError(f"No permission to read {name}.", f"Make it readable for you: chmod u+r {name}")
    if code == errno.ELOOP:
        return NanhuntError(f"{name} is a symbolic link that leads back to itself.", "Link it to a file.")
    reason = printable(os.strerror(code)) if code else printable(str(error))
    return NanhuntError(f"{name} cannot be read: {reason}.", "Check the disk and the path.")


def _missing(path: str) -> NanhuntError:
    name = printable(path)
    if "\0" not in path and Path(path).is_symlink():
        target = printable(str(Path(path).readlink()))
        return NanhuntError(
            f"{name} is a symbolic link to {target}, which does not exist.", "Restore the target."
        )
    folder = Path(path).parent
    try:
        siblings = sorted(entry.name for entry in folder.iterdir())
    except (OSError, ValueError):
        return NanhuntError(f"{name} does not exist.", "Its folder does not either: check the path.")
    guess = did_you_mean(Path(path).name, siblings)
    return NanhuntError(
        f"{name} does not exist.", guess.strip() or f"Check the path; nanhunt reads {READABLE}."
    )


def _standard_input() -> Source:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None or stream.closed:
        raise NanhuntError("Standard input is closed.", "Pipe a file into nanhunt, or name one.")
    if stream.isatty():
        raise NanhuntError(
            'Standard input ("-") is the terminal.', "Pipe a file: nanhunt check - < logits.npy"
        )
    unnamed = _redirected(stream) or spooled(stream, "Standard input")
    return Source(STDIN, os.fstat(unnamed.descriptor).st_size, unnamed)


def _redirected(stream: IO[bytes]) -> Unnamed | None:
    """A file that the shell opened as standard input can be read where it lies."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except OSError:  # io.UnsupportedOperation: not an operating system's stream
        return None
    return Unnamed(stream) if stat.S_ISREG(mode) and stream.tell() == 0 else None


def spooled(stream: IO[bytes], name: str) -> Unnamed:
    """All bytes of a stream in a file without a name. Raises NanhuntError when the disk is full."""
    # Loaded here because a named file needs neither.
    import shutil
    import tempfile

    try:
        with tempfile.TemporaryFile() as spool:
            shutil.copyfileobj(stream, spool, 1 << 20)
            spool.flush()
            return Unnamed(spool)
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        hint = "Set TMPDIR to a folder with room, or name the file instead of piping it."
        raise NanhuntError(f"{name} could not be spooled to a temporary file: {reason}.", hint) from None
