"""Files behind a URL, by fsspec (nanhunt[remote]): only the ranges that are asked for are fetched, nothing is stored.

Credentials, proxies and regions are the affair of fsspec's backends and their own settings.
"""

from __future__ import annotations

import importlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import IO, TYPE_CHECKING, Any, TypeVar

from nanhunt.errors import NanhuntError
from nanhunt.load.wording import printable
from nanhunt.results.report import natural_key

if TYPE_CHECKING:
    from nanhunt.load.source import Unnamed

Result = TypeVar("Result")
PART = 1 << 26
"""Bytes asked for at once."""
HEADER = 1 << 17
"""Bytes fetched around what a header needs."""
PAUSES = (0.2, 1.0)
"""Seconds before each new try."""


def is_url(path: str) -> bool:
    """Whether it names a place that fsspec opens: "s3://bucket/key"."""
    scheme, colon, _ = path.partition("://")
    return bool(colon) and scheme.isalnum()


@dataclass(frozen=True)
class Remote:
    """One object behind a URL."""

    url: str
    files: Any
    """fsspec's file system."""
    path: str
    """As the file system has it."""
    size: int
    """In bytes."""

    def open(self) -> IO[bytes]:
        """A stream that fetches as it is read; who needs a file descriptor gets one of a copy without a name."""
        plain = _tried(self.url, lambda: self.files.open(self.path, "rb", block_size=HEADER))
        return io.BufferedReader(_Stream(self, plain))

    def read(self, start: int, size: int) -> bytearray:
        """``size`` bytes from ``start`` on, each fetched once. Raises NanhuntError when they do not come."""
        found = bytearray()
        while len(found) < size:
            first = start + len(found)
            last = min(first + PART, start + size)
            part = _tried(self.url, partial(self.files.cat_file, self.path, start=first, end=last))
            if not part:
                hint = "Try again when the program that writes it has finished."
                raise NanhuntError(f"{printable(self.url)} became shorter while it was read.", hint)
            found += part
        return found

    @cached_property
    def copy(self) -> Unnamed:
        """All of it in a temporary file, for formats that cannot be read by ranges."""
        from nanhunt.load.source import spooled

        with self.files.open(self.path, "rb") as stream:
            return spooled(stream, printable(self.url))


class _Stream(io.RawIOBase):
    """fsspec's file, whose errors are ours."""

    def __init__(self, remote: Remote, plain: Any) -> None:
        self._remote, self._plain = remote, plain

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._plain.seek(offset, whence))

    def tell(self) -> int:
        return int(self._plain.tell())

    def readinto(self, buffer: Any) -> int:
        taken = _tried(self._remote.url, lambda: self._plain.read(len(buffer)))
        buffer[: len(taken)] = taken
        return len(taken)

    def fileno(self) -> int:
        return self._remote.copy.descriptor

    def close(self) -> None:
        self._plain.close()
        super().close()


def open_url(url: str) -> Remote:
    """Raises NanhuntError for what is missing or forbidden, and where fsspec or its backend is not installed."""
    files, path = _file_system(url)
    size = _tried(url, lambda: files.info(path)).get("size")
    if not isinstance(size, int):
        hint = f"Pipe it: curl -L {printable(url)} | nanhunt check -"
        raise NanhuntError(f"The server of {printable(url)} does not say how large it is.", hint)
    return Remote(url, files, path, size)


def urls_below(url: str) -> list[str] | None:
    """The files in a folder and in those below it, in natural order; None for what is no folder.

    A web server has folders only where the URL ends in a slash: to ask it for others would be to fetch them.
    Raises NanhuntError as ``open_url`` does.
    """
    files, path = _file_system(url)
    if not url.endswith("/") and (url.startswith("http") or not _tried(url, partial(files.isdir, path))):
        return None
    found = _tried(url, partial(files.find, path))
    return sorted(map(files.unstrip_protocol, found), key=lambda each: (natural_key(each), each))


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it."""
    try:
        files, path = importlib.import_module("fsspec.core").url_to_fs(url)
    except ImportError as error:
        hint = f"pip install 'nanhunt[remote]' ({printable(str(error))[:80]})"
        raise NanhuntError(f"{printable(url)} needs fsspec and the backend of its scheme.", hint) from None
    except (ValueError, OSError) as error:
        raise _failed(url, error) from None
    return files, path


def _tried(url: str, call: Callable[[], Result]) -> Result:
    """What the call gives, tried again after a pause where the network may be at fault."""
    for pause in (*PAUSES, None):
        try:
            return call()
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise _failed(url, error) from None
        except Exception as error:  # every backend has errors of its own
            if pause is None:
                raise _failed(url, error) from None
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _failed(url: str, error: Exception) -> NanhuntError:
    name = printable(url)
    if isinstance(error, FileNotFoundError):
        return NanhuntError(f"{name} does not exist.", "Check the URL; private ones need credentials.")
    if isinstance(error, PermissionError):
        return NanhuntError(f"No permission to read {name}.", "Check the credentials of its backend.")
    lines = str(error).splitlines()
    why = printable(lines[0])[:120] if lines else type(error).__name__
    return NanhuntError(f"{name} cannot be read: {why}.", "Check the network and the URL.")
