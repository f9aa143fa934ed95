"""Checkpoints as torch.save wrote them before 1.6: a row of pickles, and the storages behind them."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence

from nanhunt.load.container import Container
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.readers import pickled
from nanhunt.load.readers.pickled import External
from nanhunt.load.readers.pt import Damaged, Storage, checkpoint, identity, mapped_storage
from nanhunt.load.source import Source
from nanhunt.load.wording import printable

MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a pickle of torch.save's magic number ends, in every binary pickle protocol."""


def _is_legacy(source: Source) -> bool:
    return source.head[:1] == b"\x80" and MAGIC in source.head[:32]


def _open(source: Source, reading: Reading) -> Container:
    """The tensors under dotted names, memory-mapped; classes of any kind are read through."""
    with source.open() as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    places: dict[str, tuple[int, int, bool]] = {}

    def load() -> pickled.Loaded:
        magic = pickled.load(content)
        version = pickled.load(content, magic.end)
        system = pickled.load(content, version.end)
        loaded = pickled.load(content, system.end)
        keys = pickled.load(content, loaded.end)
        little = not isinstance(system.object, dict) or system.object.get("little_endian", True)
        places.update(_places(content, keys, loaded.externals, big=not little))
        return loaded

    def storage(external: External) -> tuple[Storage, str]:
        dtype, key, itemsize, view = identity(external)
        if key not in places:
            raise Damaged(f"it has no storage {printable(key)[:40]}")
        start, size, big = places[key]
        skipped, kept = view or (0, size // itemsize)
        if skipped < 0 or kept < 0 or (skipped + kept) * itemsize > size:
            raise Damaged(f"storage {printable(key)[:40]} is shorter than a view of it")
        return mapped_storage(source, start + skipped * itemsize, kept * itemsize, big=big), dtype

    return checkpoint(source, load, storage, "pt-legacy")


def _places(
    content: mmap.mmap, keys: pickled.Loaded, externals: Sequence[External], *, big: bool
) -> Iterator[tuple[str, tuple[int, int, bool]]]:
    """(key, (position, bytes, whether big-endian)) of every storage: each is a count of values, then the values."""
    itemsizes = {key: itemsize for _, key, itemsize, _ in map(identity, externals)}
    position = keys.end
    for key in keys.object if isinstance(keys.object, list) else ():
        if not isinstance(key, str) or position + 8 > len(content):
            raise Damaged("its storages are cut off")
        (count,) = struct.unpack_from(">q" if big else "<q", content, position)
        size = count * itemsizes.get(key, 1)
        position += 8
        if not 0 <= size <= len(content) - position:
            raise Damaged("its storages are cut off")
        yield key, (position, size, big)
        position += size


READER = FileReader("pt-legacy", (), _is_legacy, _open)
