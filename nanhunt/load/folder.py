"""Folders become the files in them that nanhunt reads, and a word on those it does not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from nanhunt.errors import NanhuntError
from nanhunt.load.foreign import UnknownContent, refusal
from nanhunt.load.listing import STDIN, Entry, ahead, entries, is_folder, is_url
from nanhunt.load.reader import Reader, reader_of, readers
from nanhunt.load.source import Folder, open_source
from nanhunt.load.wording import READABLE, printable


@dataclass
class Found:
    """What lies at some paths."""

    files: list[str] = field(default_factory=list)
    """To open, each once, in the order in which people count."""
    passed_over: list[tuple[str, str]] = field(default_factory=list)
    """(path, what it is) of files in folders that nanhunt does not read."""


def find(paths: Iterable[str], exclude: Sequence[str] = (), *, fetches: bool = True) -> Found:
    """The files to open: folders expanded, files and "-" as they are.

    In a folder (and below it, in natural order: step-2 before step-10) files are recognised by content, and so are
    folders that are a format; hidden ones, those that match a glob of ``exclude`` and shards that an index beside
    them names are left out. A file that is called like a tensor file and is empty, damaged or not readable stays
    in, so that opening it says so. Raises NanhuntError for a folder without any file to read.

    ``fetches``: small objects behind URLs are under way from now on; not where other processes will read them.
    """
    found = Found()
    for path in paths:
        if path in ("", STDIN) or not is_folder(path):
            found.files.append(path)
            continue
        before = len(found.files)
        search = _Search(path, tuple(exclude), found, fetches)
        _search(path, search)
        if len(found.files) == before:
            raise _nothing_in(path, found, exclude)
    found.files = list(dict.fromkeys(found.files))
    return found


def _nothing_in(folder: str, found: Found, exclude: Sequence[str]) -> NanhuntError:
    others = sorted({what for _, what in found.passed_over})
    seen = f" (there are: {', '.join(others)})" if others else ""
    left_out = f" Excluded: {', '.join(exclude)}." if exclude else ""
    hint = f"It reads {READABLE}, hidden files left out.{left_out}"
    return NanhuntError(f"{printable(folder)} holds no file that nanhunt reads{seen}.", hint)


@dataclass(frozen=True)
class _Search:
    """One folder that the user named, and what was found in it so far."""

    root: str
    exclude: tuple[str, ...]
    found: Found
    fetches: bool

    def leaves_out(self, entry: Entry) -> bool:
        """Whether it is hidden, or a glob matches its path from the root, or from any folder on."""
        inside = os.path.relpath(entry.path, self.root)
        return entry.name.startswith(".") or any(
            fnmatchcase(inside, glob) or fnmatchcase(inside, f"*/{glob}") for glob in self.exclude
        )


def _search(folder: str, search: _Search) -> None:
    """Files of this folder first, then those of its folders. Links to folders are not followed."""
    here = Folder(folder)
    format_ = reader_of(here)
    covered = set(format_.parts(here)) if format_ else set()
    if format_:
        search.found.files.append(folder)
    shown = [entry for entry in entries(folder) if not search.leaves_out(entry)]
    files = [entry.path for entry in shown if not entry.is_folder and entry.name not in covered]
    before = len(search.found.passed_over)
    recognised = dict(_recognised(files, search))
    for path, reader in recognised.items():
        covered.update(reader.parts(open_source(path)) if reader else ())
    passed_over = search.found.passed_over
    passed_over[before:] = [each for each in passed_over[before:] if Path(each[0]).name not in covered]
    search.found.files += [path for path in recognised if Path(path).name not in covered]
    for entry in shown:
        if entry.is_folder and entry.name not in covered:
            if is_folder(entry.path):
                _search(entry.path, search)
            else:  # it may not be read, and opening it says so
                search.found.files.append(entry.path)


def _recognised(files: Sequence[str], search: _Search) -> Iterator[tuple[str, Reader | None]]:
    """(path, its reader, or None where opening it tells what is wrong) of the files worth opening."""
    for path in ahead(files, most=0):
        named = path.lower()
        # Only regular files are opened: a search must not wait for a pipe.
        if not is_url(path) and not Path(path).is_file():
            # Links that lead nowhere deserve an error.
            if Path(path).is_symlink() and not Path(path).exists() and named.endswith(_suffixes(loose=True)):
                yield path, None
            continue
        try:
            source = open_source(path)
            reader = reader_of(source)
            if reader is None:
                raise refusal(source)
            if search.fetches and source.remote is not None:
                source.remote.expect()
            yield path, reader
        except UnknownContent as error:
            if named.endswith(_suffixes(loose=False)):
                yield path, None
            else:
                search.found.passed_over.append((path, error.kind))
        except NanhuntError as error:
            if named.endswith(_suffixes(loose=True)):
                yield path, None
            else:
                what = "empty" if "is empty" in error.message else "not readable"
                search.found.passed_over.append((path, what))


def _suffixes(*, loose: bool) -> tuple[str, ...]:
    """What tensor files are called; with ``loose`` also what other files may be called."""
    return tuple(
        suffix
        for reader in readers()
        for suffix in (*reader.suffixes, *(reader.loose_suffixes if loose else ()))
    )
