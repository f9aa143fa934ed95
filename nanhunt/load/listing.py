"""What lies where: folders and files of this machine and behind URLs, by the same few questions.

``remote`` is imported where a URL is met: files of this machine need no threads and no cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanhunt.errors import NanhuntError
from nanhunt.results.order import natural_key

STDIN = "-"


def is_url(path: str) -> bool:
    """Whether it names a place that fsspec opens: "s3://bucket/key"."""
    scheme, colon, _ = path.partition("://")
    return bool(colon) and scheme.isalnum()


@dataclass(frozen=True)
class Entry:
    """Something in a folder."""

    name: str
    path: str
    """As the user would write it."""
    is_folder: bool
    size: int | None
    """In bytes, where the listing tells."""


def entries(folder: str) -> list[Entry]:
    """What a folder holds, in the order in which people count, hidden ones too; links are no folders.

    Raises OSError, or NanhuntError behind a URL.
    """
    if is_url(folder):
        from nanhunt.load import remote

        return list(remote.entries(folder) or ())
    with os.scandir(folder) as found:
        each = [Entry(item.name, item.path, item.is_dir(follow_symlinks=False), None) for item in found]
    return sorted(each, key=lambda entry: (natural_key(entry.name), entry.name))


def is_folder(path: str) -> bool:
    """Whether there is a folder that may be read."""
    try:
        if is_url(path):
            from nanhunt.load import remote

            return remote.entries(path) is not None
        return Path(path).is_dir() and os.access(path, os.R_OK | os.X_OK)
    except (OSError, ValueError, NanhuntError):
        return False  # opening it says why


def exists(path: str) -> bool:
    """Whether there is anything of that name."""
    try:
        if is_url(path):
            return is_folder(path) or _url_size(path) >= 0
        return Path(path).exists()
    except (OSError, ValueError, NanhuntError):
        return False


def files_below(path: str) -> Iterator[tuple[str, int | None]]:
    """(path, bytes) of all files in a folder and in those below, hidden ones too; of a file itself."""
    if not is_folder(path):
        yield path, bytes_at(path)
        return
    for entry in entries(path):
        if entry.is_folder:
            yield from files_below(entry.path)
        else:
            yield entry.path, bytes_at(entry.path) if entry.size is None else entry.size


def bytes_at(path: str) -> int | None:
    """Of a file, or of all files in a folder; None where only opening tells, 0 for what is missing."""
    if path == STDIN:
        return None
    try:
        if is_folder(path):
            return sum(size or 0 for _, size in files_below(path))
        return _url_size(path) if is_url(path) else Path(path).stat().st_size
    except (OSError, ValueError, NanhuntError):
        return 0  # opening it says why


def _url_size(url: str) -> int:
    from nanhunt.load import remote

    return remote.open_url(url).size


def beside(file: str, name: str) -> str:
    """The path or URL of another file in its folder."""
    return f"{file.rpartition('/')[0]}/{name}" if is_url(file) else str(Path(file).parent / name)


def inside(folder: str, name: str) -> str:
    """The path or URL of something in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else str(Path(folder) / name)


def text(file: str) -> str:
    """A small file as UTF-8. Raises OSError, ValueError, or NanhuntError behind a URL."""
    if not is_url(file):
        return Path(file).read_text(encoding="utf-8")
    from nanhunt.load import remote

    there = remote.open_url(file)
    return there.read(0, there.size).decode()


def look_anew(path: str) -> None:
    """Forgets what was listed of a URL: a run that goes on writes more. Of this machine nothing is remembered."""
    if is_url(path):
        from nanhunt.load import remote

        remote.look_anew(path)


def ahead(paths: Sequence[str], most: int | None = None) -> Iterator[str]:
    """The paths in their order; the objects behind URLs are on their way before their turn comes.

    ``most``: bytes up to which all of an object is fetched, as many as a small one has unless it is given; of larger
    ones and of none it is the header.
    """
    if not any(map(is_url, paths)):
        return iter(paths)
    from nanhunt.load import remote

    return remote.ahead(paths, most)
