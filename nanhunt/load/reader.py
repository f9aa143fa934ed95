"""What a reader is, and the list of them: one file a format in ``readers``, one line here.

A format can be a file or a folder. Readers are asked in this order, and none is imported before its turn.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from nanhunt.load.container import Container
from nanhunt.load.source import Folder, Location, Source


@dataclass(frozen=True)
class Reading:
    """What a reader may ask for besides the bytes."""

    stored_dtype: str | None
    """What a |V1 or |V2 .npy holds."""
    open_path: Callable[[str], Container]
    """Opens another file, for formats that name some; never another file of that kind."""


class Reader(Protocol):
    """One format."""

    @property
    def name(self) -> str:
        """As reports call it: "npy"."""

    @property
    def suffixes(self) -> Collection[str]:
        """A file called so and of another format deserves an error, where a folder is searched."""

    @property
    def loose_suffixes(self) -> Collection[str]:
        """... and so only when it is damaged: anything may be called .bin."""

    def recognises(self, place: Location) -> bool:
        """Whether this is of the format, by first bytes or table of contents, never by its suffix.

        Raises NanhuntError for what is of the format and damaged.
        """

    def parts(self, place: Location) -> Collection[str]:
        """Names that opening it reads along: beside a file, or in a folder. A search leaves them out."""

    def open(self, place: Location, reading: Reading) -> Container:
        """Its tensors, mapped when they are read. Raises NanhuntError when it is not whole."""


@dataclass(frozen=True)
class FileReader:
    """A reader of single files, as data."""

    name: str
    suffixes: Collection[str]
    guess: Callable[[Source], bool]
    read: Callable[[Source, Reading], Container]
    loose_suffixes: Collection[str] = ()
    beside: Callable[[Source], Collection[str]] = lambda source: ()

    def recognises(self, place: Location) -> bool:
        """See ``Reader``."""
        return isinstance(place, Source) and self.guess(place)

    def parts(self, place: Location) -> Collection[str]:
        """See ``Reader``."""
        return self.beside(place) if isinstance(place, Source) else ()

    def open(self, place: Location, reading: Reading) -> Container:
        """See ``Reader``."""
        assert isinstance(place, Source)
        return self.read(place, reading)


@dataclass(frozen=True)
class FolderReader:
    """A reader of folders, as data."""

    name: str
    guess: Callable[[Folder], bool]
    read: Callable[[Folder, Reading], Container]
    inside: Callable[[Folder], Collection[str]] = lambda folder: folder.names
    suffixes: Collection[str] = ()
    loose_suffixes: Collection[str] = ()

    def recognises(self, place: Location) -> bool:
        """See ``Reader``."""
        return isinstance(place, Folder) and self.guess(place)

    def parts(self, place: Location) -> Collection[str]:
        """See ``Reader``."""
        return self.inside(place) if isinstance(place, Folder) else ()

    def open(self, place: Location, reading: Reading) -> Container:
        """See ``Reader``."""
        assert isinstance(place, Folder)
        return self.read(place, reading)


READERS: list[str | Reader] = [
    "nanhunt.load.readers.npy",
    "nanhunt.load.readers.safetensors",
    "nanhunt.load.readers.index",
    "nanhunt.load.readers.pt",
    "nanhunt.load.readers.npz",
    "nanhunt.load.readers.pt_legacy",
    "nanhunt.load.readers.pt_tar",
    "nanhunt.load.readers.gguf",
    "nanhunt.load.readers.hdf5",
    "nanhunt.load.readers.arrow",
    "nanhunt.load.readers.msgpack",
    "nanhunt.load.readers.mat",
    "nanhunt.load.readers.table",
    "nanhunt.load.readers.onnx",
    "nanhunt.load.readers.dcp",
    "nanhunt.load.readers.sharded_safetensors",
    "nanhunt.load.readers.zarr",
]
"""Modules with a ``READER``, or readers."""


def readers() -> Iterator[Reader]:
    """All readers, each imported when its turn comes."""
    for entry in READERS:
        if isinstance(entry, str):
            reader: Reader = importlib.import_module(entry).READER
            yield reader
        else:
            yield entry


def reader_of(place: Location) -> Reader | None:
    """The reader that recognises a place; None when there is none. Raises NanhuntError for damaged archives."""
    return next((reader for reader in readers() if reader.recognises(place)), None)
