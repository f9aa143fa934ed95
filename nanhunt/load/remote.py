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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import IO, TYPE_CHECKING, Any, TypeVar

from nanhunt.errors import NanhuntError
from nanhunt.load.fetched import BUDGET, Fetched
from nanhunt.load.listing import Entry, is_url
from nanhunt.load.wording import printable
from nanhunt.results.order import natural_key

if TYPE_CHECKING:
    from nanhunt.load.source import Unnamed

Result = TypeVar("Result")
PART = 1 << 22
"""Bytes of one request; where more are wanted, several are under way at once."""
SMALL = 1 << 23
"""Bytes of an object up to which all of it is fetched before its turn."""
WINDOW = 1 << 26
"""Bytes fetched ahead of a reader that goes through an object, at most."""
GROWTH = 3
"""Bytes fetched ahead for each that was read without a gap."""
HEADER = 1 << 16
"""Bytes fetched at least: what a header needs, and many small tensors in one request."""
PAUSES = (0.2, 1.0, 4.0)
"""Seconds before each new try."""

_fetched = Fetched()
_by_pieces: set[str] = set()
"""URLs, of folders too, of which others say what to read here: what comes next is read by somebody else."""
arrived: list[Callable[[int], None]] = []
"""Told of the bytes of every part that has come, in a thread of its own: whoever shows that something goes on."""


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
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """Held while it is decided what to ask for: nobody asks for what is under way."""

    def __reduce__(self) -> tuple[Any, ...]:
        """By its URL."""
        return open_url, (self.url,)

    def __dask_tokenize__(self) -> tuple[str, int, str]:
        """What Dask tells it by: its executor asks for that of all work, and cannot take it from a lock."""
        return self.url, self.size, self.version

    @property
    def _key(self) -> str:
        return f"{self.url} {self.size} {self.version}"

    def keep(self, first: bytes) -> None:
        """Knows the first bytes, which came with its size."""
        if first and len(first) <= self.size and _fetched.at(self._key, 0) is None:
            coming: Future[bytes] = Future()
            coming.set_result(first)
            _fetched.add(self._key, 0, len(first), coming)

    def open(self) -> IO[bytes]:
        """A stream that fetches as it is read; who needs a file descriptor gets one of a copy without a name."""
        return io.BufferedReader(_Stream(self), HEADER)

    def read(self, start: int, size: int) -> bytearray:
        """``size`` bytes from ``start`` on, fetched unless they were. Raises NanhuntError when they do not come."""
        found = bytearray().join(self._pieces(start, size))
        if start + size == self.size:
            _fetched.done(self._key)
        return found

    def fetch(self, start: int, size: int) -> None:
        """Waits for bytes that somebody will read later. Raises NanhuntError when they do not come."""
        for _ in self._pieces(start, size):
            pass

    def _pieces(self, start: int, size: int) -> Iterator[memoryview]:
        """``size`` bytes from ``start`` on, part by part."""
        end = start + size
        while start < end:
            piece = self.some(start, end - start)
            yield piece
            start += len(piece)

    def some(self, start: int, size: int) -> memoryview:
        """As ``read``, as many of them as one part has: at least one."""
        first, coming = self._coming(start, size)
        return memoryview(coming.result())[start - first :][:size]

    def expect(self) -> None:
        """All of it will be read: what a small object lacks is under way from now on, as long as there is room."""
        if self.by_ranges and self.size <= SMALL and _fetched.kept + self.size <= BUDGET // 2:
            with self._lock:
                first, behind = _fetched.gap(self._key, 0)
                if behind is None and first < self.size:
                    self._begin(first, self.size)

    def read_ahead(self, spans: Iterable[tuple[int, int]]) -> None:
        """Fetches (first, last + 1) bytes here and there side by side; what does not come is told to who reads it."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._quietly, spans))

    def _quietly(self, span: tuple[int, int]) -> None:
        first, last = max(0, span[0]), min(self.size, span[1])
        with contextlib.suppress(NanhuntError):
            self.fetch(first, max(0, last - first))

    def _coming(self, start: int, size: int) -> tuple[int, Future[bytes]]:
        """(where it begins, what it will be) of the part that ``start`` lies in, which may be under way."""
        with self._lock:
            known = _fetched.at(self._key, start)
            if known is None:
                return self._ask(start, size)
            self._go_on(start)
            return known

    def _ask(self, start: int, size: int) -> tuple[int, Future[bytes]]:
        """Asks for ``size`` bytes that nobody has, or the first of them, and for what will be wanted next.

        The longer somebody reads on, small gaps left out, the more is fetched ahead, as operating systems do with
        files: many small tensors take few requests, and a single one takes no more than its own bytes. Who
        reads the end of an object goes on to what is before it: a zip's table of contents.
        """
        before, behind = _fetched.gap(self._key, start)
        ending = start >= self.size - HEADER
        begin = max(before, self.size - HEADER) if ending else before if start - before <= HEADER else start
        run = 0 if self._by_pieces else _fetched.run_before(self._key, begin, WINDOW)
        ahead = min(WINDOW, max(HEADER, GROWTH * run))
        end = min(behind or self.size, max(begin + ahead, start + min(size, WINDOW)))
        parts = self._begin(begin, end)
        return next(each for each in reversed(parts) if each[0] <= start)

    def _go_on(self, start: int) -> None:
        """Asks for what comes next while what is there is being judged, where somebody has long been reading on."""
        if self._by_pieces:
            return
        edge = _fetched.run_behind(self._key, start, WINDOW)
        run = _fetched.run_before(self._key, edge, WINDOW)
        if run < PART or edge >= self.size:
            return
        room = min(WINDOW, BUDGET // (2 * _fetched.streams(PART)))
        if edge - start <= room - room // 4:
            _, behind = _fetched.gap(self._key, edge)
            more = min(GROWTH * run, room - (edge - start))
            self._begin(edge, min(behind or self.size, edge + max(PART, more)))

    @property
    def _by_pieces(self) -> bool:
        return any(self.url.startswith(each) for each in _by_pieces)

    def _begin(self, begin: int, end: int) -> list[tuple[int, Future[bytes]]]:
        """Requests for parts of that range, all under way at once."""
        cuts = [*range(begin, end, PART), end]
        found: list[tuple[int, Future[bytes]]] = []
        for first, last in itertools.pairwise(cuts):
            coming: Future[bytes] = Future()
            _fetched.add(self._key, first, last - first, coming)
            found.append((first, coming))
            # Threads that end with the program: a pool would wait for a server that does not answer.
            threading.Thread(target=self._bring, args=(first, last, coming), daemon=True).start()
        return found

    def _bring(self, first: int, last: int, coming: Future[bytes]) -> None:
        """Fetches one part for whoever waits for it."""
        try:
            part = self._part(first, last)
        except BaseException as error:
            _fetched.forget(self._key, first)  # who reads it later asks again
            coming.set_exception(error)
            return
        coming.set_result(part)
        for tell in arrived:
            tell(len(part))

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
        wanted = min(len(buffer), self._remote.size - self._at)
        if wanted <= 0:
            return 0
        taken = self._remote.some(self._at, wanted)  # no more: who buffers asks for more than is wanted
        buffer[: len(taken)] = taken
        self._at += len(taken)
        return len(taken)

    def fileno(self) -> int:
        return self._remote.copy.descriptor


@lru_cache(maxsize=1 << 12)
def open_url(url: str) -> Remote:
    """Raises NanhuntError for what is missing or forbidden, and where fsspec or its backend is not installed."""
    told, first = _listed.get(url), b""
    if told is None:
        told, first = tried(url, partial(_looked_at, url))
    size = told.get("size")
    if not isinstance(size, int):
        hint = f"Pipe it: curl -L {printable(url)} | nanhunt check -"
        raise NanhuntError(f"The server of {printable(url)} does not say how large it is.", hint)
    version = next((str(told[key]) for key in _VERSIONS if told.get(key)), "")
    remote = Remote(url, size, version, told.get("partial", True))
    remote.keep(first)
    return remote


def read_by_pieces(url: str) -> None:
    """Nothing of it, or of what lies in it, is fetched ahead from now on: several processes share in reading it."""
    _by_pieces.add(url)


_VERSIONS = ("ETag", "etag", "generation", "commit_hash", "LastModified", "Last-Modified", "mtime", "created")
"""How file systems call what changes with an object."""


def _looked_at(url: str) -> tuple[dict[str, Any], bytes]:
    """(what there is to know of an object, its first bytes where those came along)."""
    files, path = _file_system(url)
    if not url.startswith("http"):
        return files.info(path), b""
    return importlib.import_module("fsspec.asyn").sync(files.loop, _asked_for_its_start, files, path)  # type: ignore[no-any-return]


async def _asked_for_its_start(files: Any, url: str) -> tuple[dict[str, Any], bytes]:
    """As ``_looked_at``, of an object of a web server, by one request instead of fsspec's two for its size and a part.

    Raises FileNotFoundError, PermissionError, and aiohttp's errors for other answers.
    """
    session = await files.set_session()
    given = {"allow_redirects": True, **files.kwargs}
    headers = {**given.pop("headers", {}), "Range": f"bytes=0-{HEADER - 1}", "Accept-Encoding": "identity"}
    async with session.get(files.encode_url(url), headers=headers, **given) as answer:
        if answer.status in (404, 410):
            raise FileNotFoundError(url)
        if answer.status in (401, 403):
            raise PermissionError(url)
        if answer.status == 416:  # no first byte: it is empty
            return {"size": 0}, b""
        answer.raise_for_status()
        told: dict[str, Any] = dict(answer.headers)
        part, _, whole = answer.headers.get("Content-Range", "").partition("/")
        if answer.status == 206 and part.startswith("bytes 0-") and whole.isdigit():
            return {**told, "size": int(whole)}, await answer.read()
        # Some send all of it, whatever is asked for: that is not waited for here.
        return {**told, "size": answer.content_length, "partial": False}, b""


def joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """(first, last + 1) in ascending order, those as one that touch or have less than a header between them."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if found and first - found[-1][1] <= HEADER:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


AT_ONCE = 16
"""Objects on their way at once."""


def ahead(paths: Sequence[str], most: int | None) -> Iterator[str]:
    """As ``listing.ahead``, where some of the paths are URLs."""
    most = SMALL if most is None else most
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
            there.fetch(0, there.size if there.size <= most else min(there.size, HEADER))


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
    with contextlib.suppress(NanhuntError):  # opening it says why
        _file_system(url)[0].invalidate_cache()


_EXTRA = "Install it: pip install 'nanhunt[remote]'"
_BROUGHT = ("http", "s3:", "gs:", "gcs:", "hf:")
"""What the extra brings the backends of."""


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it; fsspec keeps one for each process."""
    try:
        core = importlib.import_module("fsspec.core")
    except ImportError:
        raise NanhuntError(f"{printable(url)} needs fsspec.", _EXTRA) from None
    try:
        files, path = core.url_to_fs(url)
    except ImportError as error:  # says what to install
        hint = _EXTRA if url.startswith(_BROUGHT) else f"{printable(str(error))[:120]}."
        raise NanhuntError(f"{printable(url)} needs a package for its scheme.", hint) from None
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
            if pause is None or _lacks_credentials(error):
                raise _failed(url, error) from None
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


_CREDENTIALS = "Check the credentials of its backend."


def _failed(url: str, error: Exception) -> NanhuntError:
    name = printable(url)
    if isinstance(error, FileNotFoundError):
        return NanhuntError(f"{name} does not exist.", "Check the URL; private ones need credentials.")
    if isinstance(error, PermissionError):
        return NanhuntError(f"No permission to read {name}.", _CREDENTIALS)
    lines = str(error).splitlines()
    why = printable(lines[0])[:120].rstrip(".") if lines else type(error).__name__
    hint = _CREDENTIALS if _lacks_credentials(error) else "Check the network and the URL."
    return NanhuntError(f"{name} cannot be read: {why}.", hint)


def _lacks_credentials(error: Exception) -> bool:
    """By its own words: every backend's package has a class of its own for it."""
    return "credential" in f"{type(error).__name__} {error}".lower()
