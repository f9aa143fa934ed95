"""A path becomes a container: its bytes are recognised, and the format's own module reads them."""

from __future__ import annotations

from dataclasses import replace

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container, NothingToCheck
from nanhunt.load.content import Format, Recognised, recognise
from nanhunt.load.readers.index import open_index
from nanhunt.load.readers.npy import open_npy
from nanhunt.load.readers.safetensors import open_safetensors
from nanhunt.load.source import Source, open_source
from nanhunt.load.tensor import Address


def open_path(path: str, stored_dtype: str | None = None) -> Container:
    """The tensors in the file at ``path``, or in standard input for "-", to be mapped when read.

    ``stored_dtype`` is what a |V1 or |V2 .npy holds. Raises NothingToCheck for a file without tensors,
    NanhuntError for everything that is not one whole file of a format nanhunt reads.
    """
    source = open_source(path)
    container = _read(source, recognise(source), stored_dtype)
    if not (container.tensors or container.refused or container.numbers or container.unread):
        raise NothingToCheck(f"{source.name} holds no tensors.", "Name a file that does.")
    if path == "-":
        return container
    address = Address(path, stored_dtype)
    tensors = {name: replace(tensor, address=address) for name, tensor in container.tensors.items()}
    return replace(container, tensors=tensors)


def _read(source: Source, recognised: Recognised, stored_dtype: str | None) -> Container:
    match recognised.format:
        case Format.NPY:
            return open_npy(source, stored_dtype)
        case Format.SAFETENSORS:
            return open_safetensors(source)
        case Format.INDEX:
            return open_index(source, _open_shard)
        case Format.NPZ:
            from nanhunt.load.readers.npz import open_npz

            return open_npz(source, recognised.entries, stored_dtype)
        case Format.PT | Format.PT_LEGACY:
            from nanhunt.load.readers import pt

            legacy = recognised.format is Format.PT_LEGACY
            return pt.open_legacy(source) if legacy else pt.open_pt(source, recognised.entries)


def _open_shard(path: str) -> Container:
    source = open_source(path)
    recognised = recognise(source)
    if recognised.format is Format.INDEX:
        raise NanhuntError(
            f"{source.name} is itself an index, not a shard.", "Download or write the shards again."
        )
    return _read(source, recognised, None)
