"""Safetensors of torch.distributed.checkpoint's Hugging Face storage: every rank's box of the same tensors.

A folder of ``shard-0000R-model-....safetensors``, with the SAME names in each; where a box lies in its tensor is
said by ``DCP_SHARDING_INFO`` in the header's metadata.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container, RefusedTensor
from nanhunt.load.reader import FolderReader, Reading
from nanhunt.load.readers import safetensors
from nanhunt.load.shards import Shard, box_of, sharded
from nanhunt.load.source import Folder, Source, open_source
from nanhunt.load.tensor import Tensor
from nanhunt.load.wording import printable
from nanhunt.results.order import natural_key

KEY = "DCP_SHARDING_INFO"
_NAME = re.compile(r"shard-[0-9]+-model-.*\.safetensors")
_Box = tuple[tuple[int, ...], Tensor]


def _shards(folder: Folder) -> list[str]:
    return sorted((name for name in folder.names if _NAME.fullmatch(name)), key=natural_key)


def _open(folder: Folder, reading: Reading) -> Container:
    boxes: dict[str, list[_Box]] = {}
    refused: dict[str, RefusedTensor] = {}
    missing: list[NanhuntError] = []
    for name in _shards(folder):
        try:
            source = open_source(folder.path(name))
            container = safetensors.READER.open(source, reading)
            offsets = saved_offsets(source)
        except NanhuntError as error:
            missing.append(error)
            continue
        refused.update(container.refused)
        for tensor in container.tensors.values():
            boxes.setdefault(tensor.name, []).append((offsets.get(tensor.name, ()), tensor))
    tensors: dict[str, Tensor] = {}
    for name, found in boxes.items():
        try:
            tensors[name] = _joined(folder, name, found)
        except NanhuntError as error:
            missing.append(error)
    if missing and not tensors:
        raise missing[0]
    return Container(folder.file, tensors, "sharded-safetensors", refused, missing=tuple(missing))


def saved_offsets(source: Source) -> dict[str, tuple[int, ...]]:
    """Where the boxes in a file lie. Raises NanhuntError when its metadata do not say."""
    metadata = safetensors.metadata(source).get(KEY)
    try:
        body: dict[str, Any] = json.loads(metadata) if isinstance(metadata, str) else {}
        offsets = {name: tuple(entry["saved_offsets"]) for name, entry in body.items()}
        if all(type(each) is int and 0 <= each < 1 << 62 for box in offsets.values() for each in box):
            return offsets
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise NanhuntError(f"{source.name} does not say where its tensors lie ({KEY}).", "Save it again.")


def _joined(folder: Folder, name: str, found: Sequence[_Box]) -> Tensor:
    """One tensor of its boxes. Raises NanhuntError when they do not make one."""
    (offsets, first), *more = found
    if not more and not any(offsets):
        return dataclasses.replace(first, file=folder.file)
    dimensions = len(first.shape)
    whole: tuple[int, ...] = ()
    if all(len(low) == len(each.shape) == dimensions and each.dtype == first.dtype for low, each in found):
        ends = [[at + size for at, size in zip(low, each.shape, strict=True)] for low, each in found]
        whole = tuple(map(max, zip(*ends, strict=True)))
    if not whole or sum(math.prod(each.shape) for _, each in found) != math.prod(whole):
        message = f"{folder.name}: the boxes of {printable(name)} do not make one tensor."
        raise NanhuntError(message, "Copy the shards of all ranks.")
    return sharded(
        folder, name, first.dtype, whole, lambda: [Shard(low, box_of(each)) for low, each in found]
    )


def _says_where(folder: Folder) -> bool:
    """Whether the first shard has the metadata; plain shards of the same name are files like others."""
    shards = _shards(folder)
    try:
        return bool(shards) and KEY in safetensors.metadata(open_source(folder.path(shards[0])))
    except NanhuntError:
        return False


READER = FolderReader(
    "sharded-safetensors", lambda folder: len(_shards(folder)) > 0 and _says_where(folder), _open, _shards
)
