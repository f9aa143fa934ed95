"""Objects behind a URL, by fsspec (nanhunt[remote]): only the ranges that are asked for are fetched, nothing is stored.

Credentials, proxies and regions are the affair of fsspec's backends and their own settings.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import IO, TYPE_CHECKING, Any, TypeVar

from nanhunt.errors import NanhuntError
from nanhunt.load.fetched import Fetched
from nanhunt.load.wording import printable
from nanhunt.results.order import natural_key

if TYPE_CHECKING:
    from nanhunt.load.source import Unnamed

Result = TypeVar("Result")
PART = 1 << 23
"""Bytes of one request; where more are wanted, several are under way at once."""
WINDOW = 1 << 26
"""Bytes fetched ahead of a reader that goes through an object, at most."""
HEADER = 1 << 16
"""Bytes fetched at least: what a header needs, and many small tensors in one request."""
PAUSES = (0.2, 1.0)
"""Seconds before each new try."""

_fetched = Fetched()


def is_url(path: str) -> bool:
    """Whether it names a place that fsspec opens: "s3://bucket/key"."""
    scheme, colon, _ = path.partition("://")
    return bool(colon) and scheme.isalnum()


@dataclass(frozen=True)
class Remote:
    """One object behind a URL; in another process it is opened anew."""

    url: str
    size: int
    """In bytes."""
    version: str
    """What tells it from another object at the same URL: what the server says of its content or its time."""
    by_ranges: bool
    """Whether parts of it can be fetched; a plain web server may send only all of it."""
    _fetching: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """Held while something is fetched: who wants the same bytes waits for them."""

    def __reduce__(self) -> tuple[Any, ...]:
        """By its URL."""
        return open_url, (self.url,)

    @property
    def _key(self) -> str:
        return f"{self.url} {self.size} {self.version}"

    def open(self) -> IO[bytes]:
        """A stream that fetches as it is read; who needs a file descriptor gets one of a copy without a name."""
        return io.BufferedReader(_Stream(self), HEADER)

    def read(self, start: int, size: int) -> bytearray:
        """``size`` bytes from ``start`` on, fetched unless they were. Raises NanhuntError when they do not come."""
        found = bytearray(size)
        done = 0
        while done < size:
            known = _fetched.at(self._key, start + done)
            if known is None:
                with self._fetching:
                    known = _fetched.at(self._key, start + done) or self._fetch(start + done, size - done)
            taken = known[: size - done]
            found[done : done + len(taken)] = taken
            done += len(taken)
        return found

    def _fetch(self, start: int, size: int) -> memoryview:
        """At least the first of ``size`` bytes that nobody has, and what will be asked for next.

        The longer somebody reads on, small gaps left out, the more is fetched ahead, as operating systems do with
        files: many small tensors take few requests, and a single large one takes no more than its own bytes. Who
        reads the end of an object goes on to what is before it: a zip's table of contents.
        """
        before, behind = _fetched.gap(self._key, start)
        ending = start >= self.size - HEADER
        begin = max(before, self.size - HEADER) if ending else before if start - before <= HEADER else start
        ahead = min(WINDOW, max(HEADER, _fetched.run_before(self._key, begin, WINDOW)))
        end = min(behind or self.size, max(begin + ahead, start + min(size, WINDOW)))
        cuts = [*range(begin, end, PART), end]
        parts = dict(zip(cuts, self._parts(cuts), strict=False))
        for first, part in parts.items():
            _fetched.add(self._key, first, part)
        first = max(each for each in parts if each <= start)
        return memoryview(parts[first])[start - first :]

    def _parts(self, cuts: list[int]) -> Iterator[bytes]:
        """The ranges between neighbouring ``cuts``, asked for at once; those that fail are tried again."""
        files, path = _file_system(self.url)
        ranges = list(itertools.pairwise(cuts))
        found: list[Any] = [None]
        if len(ranges) > 1:
            found = files.cat_ranges([path] * len(ranges), cuts[:-1], cuts[1:], on_error="return")
        for (first, last), part in zip(ranges, found, strict=True):
            whole = isinstance(part, bytes) and len(part) == last - first
            yield part if whole else self._part(first, last)

    def _part(self, first: int, last: int) -> bytes:
        """One range; what a connection loses at its end is asked for again."""
        found = b""
        files, path = _file_system(self.url)
        while len(found) < last - first:
            more = tried(self.url, partial(files.cat_file, path, start=first + len(found), end=last))
            if not more or len(more) > last - first - len(found):
                hint = "Try again when the program that writes it has finished."
                raise NanhuntError(f"{printable(self.url)} changed while it was read.", hint)
            found += more
        return found

    @cached_property
    def copy(self) -> Unnamed:
        """All of it in a temporary file, for formats that cannot be read by ranges."""
        from nanhunt.load.source import spooled

        files, path = _file_system(self.url)
        stream: IO[bytes] = self.open() if self.by_ranges else files.open(path, "rb", block_size=0)
        with stream:
            return tried(self.url, lambda: spooled(stream, printable(self.url)))


class _Stream(io.RawIOBase):
    """An object as a file."""

    def __init__(self, remote: Remote) -> None:
        self._remote, self._at = remote, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._remote.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._remote.size - self._at))
        buffer[:size] = self._remote.read(self._at, size)
        self._at += size
        return size

    def fileno(self) -> int:
        return self._remote.copy.descriptor


@lru_cache(maxsize=1 << 12)
def open_url(url: str) -> Remote:
    """Raises NanhuntError for what is missing or forbidden, and where fsspec or its backend is not installed."""
    files, path = _file_system(url)
    told = _listed.get(url) or tried(url, lambda: files.info(path))
    size = told.get("size")
    if not isinstance(size, int):
        hint = f"Pipe it: curl -L {printable(url)} | nanhunt check -"
        raise NanhuntError(f"The server of {printable(url)} does not say how large it is.", hint)
    version = next((str(told[key]) for key in _VERSIONS if told.get(key)), "")
    web = url.startswith("http")
    host = url.partition("://")[2].partition("/")[0]
    return Remote(url, size, version, not web or size < 2 or _sends_ranges(host, url))


_VERSIONS = ("ETag", "etag", "generation", "commit_hash", "LastModified", "Last-Modified", "mtime", "created")
"""How file systems call what changes with an object."""
_web_servers: dict[str, bool] = {}


def _sends_ranges(host: str, url: str) -> bool:
    """Whether a web server sends parts: asked for one byte of one object, some send all of it."""
    if host not in _web_servers:
        files, path = _file_system(url)

        def second_byte() -> bool:
            with files.open(path, "rb", block_size=HEADER, cache_type="none") as stream:
                stream.seek(1)
                return len(stream.read(1)) == 1

        try:
            _web_servers[host] = tried(url, second_byte, lasting=ValueError)
        except ValueError:  # how fsspec says it, before it has fetched the rest
            _web_servers[host] = False
    return _web_servers[host]


AT_ONCE = 16
"""Objects on their way at once."""


def ahead(paths: Sequence[str], most: int) -> Iterator[str]:
    """The paths in their order; the objects behind URLs are on their way before their turn comes.

    ``most``: bytes up to which all of an object is fetched; of larger ones and of none it is the header.
    """
    if not any(map(is_url, paths)):
        yield from paths
        return
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        begun = [pool.submit(_begin, path, most) for path in paths[:AT_ONCE]]
        for number, path in enumerate(paths):
            begun[number].result()
            begun += [
                pool.submit(_begin, each, most) for each in paths[number + AT_ONCE : number + AT_ONCE + 1]
            ]
            yield path
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(path: str, most: int) -> None:
    with contextlib.suppress(NanhuntError):  # opening it says why
        if is_url(path) and (there := open_url(path)).by_ranges:
            there.read(0, there.size if there.size <= most else min(there.size, HEADER))


@dataclass(frozen=True)
class Entry:
    """Something in a folder."""

    name: str
    path: str
    """As the user would write it."""
    is_folder: bool
    size: int | None
    """In bytes, where the listing tells."""


_listed: dict[str, dict[str, Any]] = {}
"""What listings told of objects, by URL."""


@lru_cache(maxsize=1 << 12)
def entries(url: str) -> tuple[Entry, ...] | None:
    """What a folder holds, in natural order; None for what is no folder.

    A web server has folders only where the URL ends in a slash: to ask it for others would be to fetch them. Object
    stores are asked once for all that lies below. Raises NanhuntError as ``open_url`` does.
    """
    files, path = _file_system(url)
    base = url.rstrip("/")
    if url.startswith("http"):
        listed = tried(url, partial(files.ls, path, detail=True)) if url.endswith("/") else []
        names = [item["name"] for item in listed if item["name"].startswith(path)]
        inside: dict[str, int | None] = dict.fromkeys(name.removeprefix(path) for name in names)
    else:
        above = _listed_above(base)
        inside = _below(base) if above is None else above
    found = sorted(_direct(base, inside), key=lambda entry: (natural_key(entry.name), entry.name))
    return tuple(found) if found or (url.startswith("http") and url.endswith("/")) else None


_trees: dict[str, dict[str, int | None]] = {}
"""What lies below a URL that was listed: paths from there, with sizes."""


def _below(base: str) -> dict[str, int | None]:
    """All objects below, by path from there."""
    files, path = _file_system(base)
    found = tried(base, partial(files.find, path, detail=True))
    root = path.rstrip("/") + "/"
    below = {name.removeprefix(root): item for name, item in found.items() if name.startswith(root)}
    _listed.update({f"{base}/{name}": item for name, item in below.items()})
    _trees[base] = {name: item.get("size") for name, item in below.items()}
    return _trees[base]


def _listed_above(base: str) -> dict[str, int | None] | None:
    """As ``_below``, from a listing that holds it; None where there is none."""
    root = next((known for known in _trees if base == known or base.startswith(f"{known}/")), None)
    if root is None:
        return None
    prefix = f"{base.removeprefix(root).lstrip('/')}/".lstrip("/")
    return {name.removeprefix(prefix): size for name, size in _trees[root].items() if name.startswith(prefix)}


def _direct(base: str, inside: dict[str, int | None]) -> Iterator[Entry]:
    """The entries of a folder, from the paths of what lies below it."""
    seen = set()
    for path, size in inside.items():
        name, slash, _ = path.partition("/")
        if name and name not in seen and not name.startswith(("?", "#")):
            seen.add(name)
            web = base.startswith("http") and bool(slash)
            yield Entry(name, f"{base}/{name}{'/' if web else ''}", bool(slash), None if slash else size)


def look_anew(url: str) -> None:
    """Forgets what was listed: a run that goes on writes more."""
    open_url.cache_clear()
    entries.cache_clear()
    _trees.clear()
    _listed.clear()
    _file_system(url)[0].invalidate_cache()


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it; fsspec keeps one for each process."""
    try:
        files, path = importlib.import_module("fsspec.core").url_to_fs(url)
    except ImportError as error:
        hint = f"pip install 'nanhunt[remote]' ({printable(str(error))[:80]})"
        raise NanhuntError(f"{printable(url)} needs fsspec and the backend of its scheme.", hint) from None
    except (ValueError, OSError) as error:
        raise _failed(url, error) from None
    return files, path


def tried(url: str, call: Callable[[], Result], lasting: type[Exception] | tuple[()] = ()) -> Result:
    """What the call gives, tried again after a pause where the network may be at fault.

    ``lasting``: an error that no other try will mend. Raises it, and NanhuntError for all others.
    """
    for pause in (*PAUSES, None):
        try:
            return call()
        except NanhuntError:
            raise
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise _failed(url, error) from None
        except Exception as error:  # every backend has errors of its own
            if lasting and isinstance(error, lasting):
                raise
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
