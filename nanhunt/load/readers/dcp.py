"""torch.distributed.checkpoint: a folder with ``.metadata`` and files of chunks, each a whole torch.save of its own.

What FSDP, torchtitan and Megatron's torch_dist write. ``.metadata`` is a pickle, read as data: nothing of torch is
imported and nothing is called. Chunks that several ranks wrote become one tensor under the model's own indices.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container, RefusedTensor
from nanhunt.load.foreign import refusal
from nanhunt.load.listing import ahead, is_url
from nanhunt.load.reader import FolderReader, Reading, reader_of
from nanhunt.load.readers import pickled, pt, safetensors
from nanhunt.load.readers.optimizer import owned
from nanhunt.load.readers.pickled import Instance
from nanhunt.load.readers.sharded_safetensors import saved_offsets
from nanhunt.load.shards import Shard, box_of, sharded
from nanhunt.load.source import Folder, Source, open_source
from nanhunt.load.tensor import Tensor
from nanhunt.load.wording import printable

INDEX = ".metadata"
_GROUP = re.compile(r"(.+)\.param_groups\.([0-9]{1,6})\.(params|param_names|eps)")
"""How a part of a group of parameters is called: the optimizer, the group's number, the part."""
EDGE = 1 << 12
"""Bytes of a chunk's zip before and behind its values, about."""
_HINT = "Copy the folder again, from all ranks."


@dataclass
class _Contents:
    """What was found so far."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    refused: dict[str, RefusedTensor] = field(default_factory=dict)
    numbers: dict[str, Tensor] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    missing: list[NanhuntError] = field(default_factory=list)
    objects: dict[str, object] = field(default_factory=dict)
    """Of what was saved beside the tensors: the parts of an optimizer's groups, by name."""
    files: dict[str, tuple[Container, dict[str, tuple[int, ...]]]] = field(default_factory=dict)
    """Those of chunks that are safetensors, opened once for all tensors; and where each chunk lies in its tensor."""


@dataclass(frozen=True)
class _Chunk:
    """Where the bytes of one chunk lie."""

    path: str
    offset: int
    length: int
    packed: bool
    """Whether something was done to the bytes, such as compression."""


def _open(folder: Folder, reading: Reading) -> Container:
    entries, places = _index(folder)
    if is_url(folder.file):
        _fetch_edges(folder, places)
    found = _Contents()
    for name, described in entries.items():
        try:
            _add(folder, name, _attributes(described), places.get(name, {}), found)
        except RefusedTensor as error:
            found.refused[name] = error
        except NanhuntError as error:
            found.missing.append(error)
    if found.missing and not found.tensors:
        raise found.missing[0]
    found.tensors |= owned(_optimizers(found.objects), found.tensors)
    return Container(
        folder.file, found.tensors, "dcp", found.refused, found.numbers, found.unread, tuple(found.missing)
    )


def _fetch_edges(folder: Folder, places: dict[str, dict[Any, _Chunk]]) -> None:
    """Has what tells where the bytes of all chunks lie fetched at once, and not chunk by chunk as they are opened."""
    chunks: dict[str, list[_Chunk]] = {}
    for chunk in (each for found in places.values() for each in found.values()):
        if chunk.path in folder.names:
            chunks.setdefault(chunk.path, []).append(chunk)
    for path in ahead([folder.path(name) for name in chunks], most=0):
        remote = open_source(path).remote
        inside = chunks[path.rpartition("/")[2]]
        edges = [(at, at + EDGE) for each in inside for at in (each.offset, each.offset + each.length - EDGE)]
        if remote is not None:
            from nanhunt.load.remote import joined

            remote.read_ahead(joined(edges))


def _add(
    folder: Folder, name: str, described: dict[str, Any], places: dict[Any, _Chunk], found: _Contents
) -> None:
    """Files one entry of the index under what it is: a tensor, or an object that was saved beside them."""
    if "size" not in described:
        for chunk in places.values():
            _add_object(folder, name, _opened(folder, name, chunk), found)
            if _GROUP.fullmatch(name):
                found.objects[name] = pt.unpickled(_source(folder, name, chunk))
        return
    boxes = [_attributes(each) for each in described.get("chunks", ())]
    whole = tuple(described["size"])
    if sum(math.prod(box["sizes"]) for box in boxes) != math.prod(whole):
        raise _missing(folder, name, "its chunks do not add up to its shape")
    pieces = []
    for box in boxes:
        place = places.get(tuple(box["offsets"]))
        if place is None:
            raise _missing(folder, name, f"the chunk at {tuple(box['offsets'])} is in no file")
        part = _piece(folder, name, place, tuple(box["offsets"]), found)
        if part.shape != tuple(box["sizes"]):
            raise _missing(folder, name, f"a chunk is {part.shape} and should be {tuple(box['sizes'])}")
        pieces.append((tuple(box["offsets"]), part))
    if len({part.dtype for _, part in pieces}) != 1:
        raise _missing(folder, name, "its chunks differ in dtype, or there are none")
    if len(pieces) == 1:
        found.tensors[name] = dataclasses.replace(pieces[0][1], file=folder.file, name=name)
    else:
        found.tensors[name] = sharded(
            folder, name, pieces[0][1].dtype, whole,
            lambda: [Shard(offsets, box_of(part)) for offsets, part in pieces],
        )  # fmt: skip


def _add_object(folder: Folder, name: str, part: Container, found: _Contents) -> None:
    for kind, into in ((part.tensors, found.tensors), (part.numbers, found.numbers)):
        for inner, tensor in kind.items():
            full = f"{name}.{inner}" if inner else name
            into[full] = dataclasses.replace(tensor, file=folder.file, name=full)
    found.refused.update({f"{name}.{inner}": error for inner, error in part.refused.items()})
    found.unread.update({f"{name}.{inner}": what for inner, what in part.unread.items()})


def _lone(folder: Folder, name: str, part: Container) -> Tensor:
    """The tensor of a chunk. Raises why it cannot be judged, or that there is not one."""
    for error in part.refused.values():
        raise RefusedTensor(f"{folder.name}:{printable(name)}: {error.message}", error.hint)
    if len(part.tensors) != 1:
        raise _missing(folder, name, f"a chunk holds {len(part.tensors)} tensors")
    return next(iter(part.tensors.values()))


def _piece(folder: Folder, name: str, chunk: _Chunk, offsets: tuple[int, ...], found: _Contents) -> Tensor:
    """One chunk of a tensor. Raises RefusedTensor, or NanhuntError where it is not there."""
    behind = _rest(folder, name, chunk)
    if not safetensors.READER.recognises(behind):
        return _lone(folder, name, _opened(folder, name, chunk))
    # SerializationFormat.SAFETENSORS: objects first, then one for all tensors; the index knows no places in it.
    if chunk.path not in found.files:
        opened = safetensors.READER.open(behind, Reading(None, _no_part))
        found.files[chunk.path] = opened, saved_offsets(behind)
    container, saved = found.files[chunk.path]
    if saved.get(name) != offsets:
        raise _missing(folder, name, f"{printable(chunk.path)} does not hold the chunk at {offsets}")
    kept = {name: container.tensors[name]} if name in container.tensors else {}
    refused = {name: container.refused[name]} if name in container.refused else {}
    return _lone(folder, name, dataclasses.replace(container, tensors=kept, refused=refused))


def _optimizers(objects: dict[str, object]) -> dict[str, dict[str, object]]:
    """Groups of parameters as ``optimizer.state_dict()`` has them, by the name under which it was saved.

    Saving took them apart: {"optim.param_groups.0.params": [0, 1], "optim.param_groups.0.eps": 1e-8}.
    """
    groups: dict[str, dict[int, dict[str, object]]] = {}
    for name, value in objects.items():
        if said := _GROUP.fullmatch(name):
            groups.setdefault(said[1], {}).setdefault(int(said[2]), {})[said[3]] = value
    return {
        name: {"state": {}, "param_groups": [found[number] for number in sorted(found)]}
        for name, found in groups.items()
    }


def _source(folder: Folder, name: str, chunk: _Chunk) -> Source:
    """The file inside a file that holds one chunk."""
    behind = _rest(folder, name, chunk)
    if not 0 < chunk.length <= behind.size:
        raise _missing(folder, name, f"{printable(chunk.path)} is cut off")
    return dataclasses.replace(behind, size=chunk.length)


def _rest(folder: Folder, name: str, chunk: _Chunk) -> Source:
    """The file that holds a chunk, from the chunk on."""
    whole = _file(folder, name, chunk)
    if not 0 <= chunk.offset < whole.size:
        raise _missing(folder, name, f"{printable(chunk.path)} is cut off")
    return dataclasses.replace(whole, size=whole.size - chunk.offset, start=chunk.offset)


def _opened(folder: Folder, name: str, chunk: _Chunk) -> Container:
    """What is in the file that holds one chunk."""
    source = _source(folder, name, chunk)
    reader = reader_of(source)
    if reader is None:
        raise refusal(source)
    return reader.open(source, Reading(None, _no_part))


def _file(folder: Folder, name: str, chunk: _Chunk) -> Source:
    """The file that holds a chunk."""
    # A name from a downloaded index must not lead out of the folder it was downloaded to.
    if Path(chunk.path).name != chunk.path or chunk.path not in folder.names:
        raise _missing(folder, name, f"{printable(chunk.path)[:80]} is not in the folder")
    if chunk.packed:
        raise _missing(folder, name, "its bytes are compressed or encrypted")
    return open_source(folder.path(chunk.path))


def _no_part(path: str) -> Container:
    raise NanhuntError(f"{printable(path)} is not a chunk.", _HINT)


def _index(folder: Folder) -> tuple[dict[str, Instance], dict[str, dict[Any, _Chunk]]]:
    """(what there is, by name; where its chunks lie, by name and offsets)."""
    source = open_source(folder.path(INDEX))
    with source.open() as stream:
        content = stream.read()
    try:
        state = _attributes(pickled.load(content).object)
        entries = dict(state["state_dict_metadata"])
        places: dict[str, dict[Any, _Chunk]] = {}
        for name, offsets, chunk in _storage(state["storage_data"]):
            places.setdefault(name, {})[offsets] = chunk
        for name, described in entries.items():
            _check(name, described)
    except (pickled.BadPickle, KeyError, TypeError, ValueError, AttributeError):
        raise NanhuntError(
            f"{source.name} is no index of a distributed checkpoint, or damaged.", _HINT
        ) from None
    return entries, places


def _storage(data: dict[Instance, Instance]) -> Iterator[tuple[str, Any, _Chunk]]:
    for key, info in data.items():
        at, where = _attributes(key), _attributes(info)
        offsets = at.get("offset")
        yield str(at["fqn"]), None if offsets is None else tuple(offsets), _Chunk(
            str(where["relative_path"]), int(where["offset"]), int(where["length"]),
            bool(where.get("transform_descriptors")),
        )  # fmt: skip


def _check(name: object, described: object) -> None:
    """Raises ValueError for an entry whose sizes are no sizes."""
    state = _attributes(described)
    sizes = [state.get("size", ())]
    for box in state.get("chunks", ()):
        sizes += [_attributes(box)["offsets"], _attributes(box)["sizes"]]
    if not isinstance(name, str) or len({len(each) for each in sizes[1:]} | {len(sizes[0])}) != 1:
        raise ValueError(name)
    if not all(type(size) is int and 0 <= size < 1 << 62 for each in sizes for size in each):
        raise ValueError(name)


def _attributes(value: object) -> dict[str, Any]:
    """What a dataclass was pickled with."""
    if not isinstance(value, Instance) or not isinstance(value.state, dict | None):
        raise ValueError("not a dataclass")
    return value.state or {}


def _missing(folder: Folder, name: str, why: str) -> NanhuntError:
    return NanhuntError(f"{folder.name}: {printable(name)} cannot be put together: {why}.", _HINT)


def _parts(folder: Folder) -> list[str]:
    return [name for name in folder.names if name.endswith(".distcp")]


READER = FolderReader("dcp", lambda folder: INDEX in folder.names and bool(_parts(folder)), _open, _parts)
