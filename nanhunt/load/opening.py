"""A path becomes a container: a reader recognises it by its content, and reads it."""

from __future__ import annotations

from dataclasses import replace

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container, NothingToCheck
from nanhunt.load.foreign import refusal
from nanhunt.load.reader import Reader, Reading, reader_of
from nanhunt.load.source import Folder, Location, folder_refused, open_location, open_source
from nanhunt.load.tensor import Address


def open_path(path: str, stored_dtype: str | None = None) -> Container:
    """The tensors in the file or folder at ``path``, or in standard input for "-", to be mapped when read.

    ``stored_dtype`` is what a |V1 or |V2 .npy holds. Raises NothingToCheck for what holds no numbers,
    NanhuntError for everything that is not one whole file (or folder) of a format nanhunt reads.
    """
    place = open_location(path)
    reader = _reader(place)

    def open_part(part: str) -> Container:
        source = open_source(part)
        found = _reader(source)
        if found is reader:
            hint = "Download or write the shards again."
            raise NanhuntError(f"{source.name} is itself an {found.name}, not a shard.", hint)
        return found.open(source, Reading(None, open_part))

    container = reader.open(place, Reading(stored_dtype, open_part))
    if not (container.tensors or container.refused or container.numbers or container.unread):
        raise NothingToCheck(f"{place.name} holds no tensors.", "Name a file that does.")
    if path == "-":
        return container
    address = Address(path, stored_dtype)
    tensors = {name: replace(tensor, address=address) for name, tensor in container.tensors.items()}
    return replace(container, tensors=tensors)


def _reader(place: Location) -> Reader:
    """The reader of a place. Raises what to say when there is none."""
    reader = reader_of(place)
    if reader is None:
        raise folder_refused(place.file) if isinstance(place, Folder) else refusal(place)
    return reader
