"""Checkpoints as torch.save wrote them before 0.1.10: a tar of storages, tensors that are views of them, and a pickle.

The layout is that of legacy_load in torch/serialization.py.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nanhunt.load.container import Container
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.readers import pickled
from nanhunt.load.readers.pickled import External, Global, Instance
from nanhunt.load.readers.pt import Damaged, Storage, checkpoint, identity, mapped_storage
from nanhunt.load.source import Source
from nanhunt.load.wording import printable

_BLOCK = 512
_MOST_MEMBERS = 32
_MOST_DIMENSIONS = 64
"""torch's own limit."""
_PARTS = ("storages", "tensors", "pickle")


@dataclass(frozen=True)
class _Storage:
    """Where the values of a storage lie."""

    kind: Global
    start: int
    size: int
    """In bytes."""


def _is_tar(source: Source) -> bool:
    return source.head[257:262] == b"ustar" and set(_PARTS) <= _members(source).keys()


def _members(source: Source) -> dict[str, tuple[int, int]]:
    """(position, bytes) of what a tar holds, by name; what is damaged is the end."""
    found: dict[str, tuple[int, int]] = {}
    at = 0
    with source.open() as stream:
        for _ in range(_MOST_MEMBERS):
            stream.seek(at)
            header = stream.read(_BLOCK)
            try:
                size = int(header[124:136].strip(b"\0 ") or b"0", 8)
            except ValueError:
                break
            name = header[:100].partition(b"\0")[0].decode("latin-1")
            if not name or size < 0 or at + _BLOCK + size > source.size:
                break
            found.setdefault(name, (at + _BLOCK, size))
            at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    return found


def _open(source: Source, reading: Reading) -> Container:
    """The tensors under dotted names, memory-mapped; classes of any kind are read through."""
    members = _members(source)
    with source.open() as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    storages: dict[str, _Storage] = {}

    def load() -> pickled.Loaded:
        storages.update(_storages(content, *members["storages"]))
        tensors = dict(_tensors(content, *members["tensors"], storages))
        start, _ = members["pickle"]
        return pickled.load(content, start, tensors)

    def storage(external: External) -> tuple[Storage, str]:
        dtype, key, *_ = identity(external)
        found = storages[key]
        return mapped_storage(source, found.start, found.size, big=False), dtype

    return checkpoint(source, load, storage, "pt-tar")


def _storages(content: mmap.mmap, start: int, size: int) -> Iterator[tuple[str, _Storage]]:
    """Every storage by its key: a pickle, a count of values, the values; then those that are a part of another."""
    found: dict[str, _Storage] = {}
    count = pickled.load(content, start)
    at = count.end
    for _ in range(_count(count.object)):
        described = pickled.load(content, at)
        match described.object:
            case (key, _, Global() as kind):
                pass
            case _:
                raise Damaged("its storages are not described")
        at = described.end + 8
        if at > start + size:
            raise Damaged("its storages are cut off")
        (values,) = struct.unpack_from("<q", content, at - 8)
        room = values * _itemsize(str(key), kind)
        if not 0 <= room <= start + size - at:
            raise Damaged("its storages are cut off")
        found[str(key)] = _Storage(kind, at, room)
        at += room
    views = pickled.load(content, at).object
    yield from found.items()
    yield from _views(views, found)


def _views(views: Any, found: Mapping[str, _Storage]) -> Iterator[tuple[str, _Storage]]:
    for view in views if isinstance(views, list) else ():
        match view:
            case (key, root, int(offset), int(count)) if str(root) in found:
                whole = found[str(root)]
                itemsize = _itemsize(str(root), whole.kind)
                if not 0 <= offset <= offset + count <= whole.size // itemsize:
                    raise Damaged("a storage reaches past the end of another")
                yield str(key), _Storage(whole.kind, whole.start + offset * itemsize, count * itemsize)
            case _:
                raise Damaged("its storages are not described")


def _tensors(
    content: mmap.mmap, start: int, size: int, storages: Mapping[str, _Storage]
) -> Iterator[tuple[Any, Instance]]:
    """Every tensor by its key: a pickle, then numbers of 8 bytes: dimensions, sizes, strides, offset."""
    count = pickled.load(content, start)
    at = count.end
    for _ in range(_count(count.object)):
        described = pickled.load(content, at)
        at = described.end
        match described.object:
            case (key, storage, *_) if str(storage) in storages and at + 8 <= start + size:
                pass
            case _:
                raise Damaged("its tensors are not described")
        (dimensions,) = struct.unpack_from("<i", content, at)  # in 8 bytes, of which 4 count
        if not 0 <= dimensions <= _MOST_DIMENSIONS or at + 16 * (dimensions + 1) > start + size:
            raise Damaged("its tensors are cut off")
        *numbers, offset = struct.unpack_from(f"<{2 * dimensions + 1}q", content, at + 8)
        at += 16 * (dimensions + 1)
        where = External(("storage", storages[str(storage)].kind, str(storage), "cpu", 0))
        shape, strides = tuple(numbers[:dimensions]), tuple(numbers[dimensions:])
        yield str(key), Instance(Global("torch._utils", "_rebuild_tensor"), (where, offset, shape, strides))


def _itemsize(key: str, kind: Global) -> int:
    return identity(External(("storage", kind, key, "cpu", 0)))[2]


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise Damaged(f"it counts {printable(repr(value))[:20]} parts")
    return value


READER = FileReader("pt-tar", (), _is_tar, _open)
