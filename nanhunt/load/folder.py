"""Folders become the files in them that nanhunt reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from nanhunt.errors import NanhuntError
from nanhunt.load.content import Format, UnknownContent, recognise
from nanhunt.load.readers.index import SUFFIX as INDEX_SUFFIX
from nanhunt.load.readers.index import read_weight_map
from nanhunt.load.source import STDIN, open_source
from nanhunt.load.wording import READABLE, printable
from nanhunt.results.report import natural_key

_OURS = (".npy", ".npz", ".pt", ".pth", ".ckpt", ".safetensors")
"""A file called so and of another format deserves an error; anything may be called .bin."""
_PERHAPS = (*_OURS, ".bin", INDEX_SUFFIX)


def find(paths: Iterable[str]) -> list[str]:
    """The files to open: folders expanded, files and "-" as they are, each once.

    In a folder (and below it, in natural order: step-2 before step-10) files are recognised by content;
    hidden ones, other formats, and shards that an index beside them names are left out. A file that is called
    like a tensor file and is empty, damaged or not readable stays in, so that opening it says so.
    Raises NanhuntError for a folder without any file to read.
    """
    found: list[str] = []
    for path in paths:
        found.extend(_in_folder(path) if path not in ("", STDIN) and _is_folder(path) else [path])
    return list(dict.fromkeys(found))


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir() and os.access(path, os.R_OK | os.X_OK)
    except (OSError, ValueError):
        return False  # open_path says why


def _in_folder(folder: str) -> list[str]:
    files = list(_files(folder))
    if not files:
        hint = f"It reads {READABLE}, hidden files left out."
        raise NanhuntError(f"{printable(folder)} holds no file that nanhunt reads.", hint)
    return files


def _files(folder: str) -> Iterator[str]:
    """Files of this folder first, then those of its folders. Links to folders are not followed."""
    entries = sorted(
        (entry for entry in os.scandir(folder) if not entry.name.startswith(".")), key=_entry_key
    )
    wanted = [entry.path for entry in entries if _wanted(entry.path)]
    covered = {shard for path in wanted for shard in _shards(path)}
    yield from (path for path in wanted if Path(path).name not in covered)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            # A folder that may not be read is named, so that opening it says so.
            yield from _files(entry.path) if _is_folder(entry.path) else [entry.path]


def _entry_key(entry: os.DirEntry[str]) -> tuple[object, ...]:
    return (natural_key(entry.name), entry.name)


def _wanted(path: str) -> bool:
    named = path.lower()
    # Only regular files are opened: a search must not wait for a pipe. Links that lead nowhere deserve an error.
    if not Path(path).is_file():
        return Path(path).is_symlink() and not Path(path).exists() and named.endswith(_PERHAPS)
    try:
        recognise(open_source(path))
    except UnknownContent:
        return named.endswith(_OURS)
    except NanhuntError:
        return named.endswith(_PERHAPS)
    return True


def _shards(path: str) -> Iterable[str]:
    """The shards that the index at ``path`` names; none when it is no index, or a broken one."""
    try:
        source = open_source(path)
        return read_weight_map(source).values() if recognise(source).format is Format.INDEX else ()
    except NanhuntError:
        return ()
