"""*.index.json: which shard of a checkpoint holds which tensor."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container, RefusedTensor
from nanhunt.load.listing import STDIN, beside, is_url
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.source import Source
from nanhunt.load.tensor import Tensor
from nanhunt.load.wording import did_you_mean, printable

LARGEST = 1 << 26
"""Bytes; the index of a model with 100,000 tensors has a tenth of that."""
KEY = "weight_map"


def _is_index(source: Source) -> bool:
    return source.head.lstrip()[:1] == b"{" and f'"{KEY}"'.encode() in source.head


def _open(source: Source, reading: Reading) -> Container:
    """The tensors of all shards in the order of the index, each mapped when it is read.

    A shard that is missing or damaged is told once, and the others are still read.
    """
    if source.file == STDIN:
        raise NanhuntError("An index on standard input cannot lead to its shards.", "Name its path instead.")
    weight_map = read_weight_map(source)
    shards, failed = _shards(source, weight_map, reading)
    tensors: dict[str, Tensor] = {}
    refused: dict[str, RefusedTensor] = {}
    for name, file in weight_map.items():
        shard = shards.get(file)
        if shard is None:
            continue
        if name in shard.refused:
            refused[name] = shard.refused[name]
        elif name in shard.tensors:
            tensors[name] = dataclasses.replace(shard.tensors[name], file=source.file)
        else:
            message = f"{source.name}: {printable(file)} does not hold {printable(name)}."
            guess = did_you_mean(name, shard.tensors)
            failed.append(NanhuntError(message, f"{guess}Download or save index and shards together."))
    if failed and not tensors:
        raise failed[0]
    return Container(source.file, tensors, "index", refused, missing=tuple(failed))


def _shards(
    source: Source, weight_map: Mapping[str, str], reading: Reading
) -> tuple[dict[str, Container], list[NanhuntError]]:
    shards: dict[str, Container] = {}
    failed: list[NanhuntError] = []
    for name in dict.fromkeys(weight_map.values()):
        try:
            shards[name] = _shard(source, name, reading.open_path)
        except NanhuntError as error:
            failed.append(error)
    return shards, failed


def _beside(source: Source) -> Collection[str]:
    try:
        return read_weight_map(source).values()
    except NanhuntError:
        return ()  # opening it says why


def read_weight_map(source: Source) -> dict[str, str]:
    """Tensor name to shard's file name. Raises NanhuntError when the file is JSON, and no index."""
    if source.size > LARGEST:
        raise NanhuntError(f"{source.name} is JSON of {source.size:,} bytes, no index of shards.", _HINT)
    with source.open() as stream:
        try:
            body = json.loads(stream.read())
        except (ValueError, RecursionError):
            hint = "Download or write it again."
            raise NanhuntError(
                f"{source.name} looks like an index of shards and is not valid JSON.", hint
            ) from None
    weight_map = body.get(KEY) if isinstance(body, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise NanhuntError(f'{source.name} is JSON without a "{KEY}" from tensors to shards.', _HINT)
    return weight_map


_HINT = "Name the files that hold tensors."


def _shard(source: Source, name: str, open_shard: Callable[[str], Container]) -> Container:
    # A name from a downloaded file must not lead out of the folder it was downloaded to.
    if not name or Path(name).name != name:
        message = f'{source.name} names the shard "{printable(name)}", which is not in its folder.'
        raise NanhuntError(message, "Put shards beside their index.")
    path = beside(source.file, name)
    try:
        if not is_url(path) and not Path(path).exists():
            hint = "Download it again, or check the shards that are there one by one."
            raise NanhuntError(f"it needs the shard {printable(path)}, which does not exist.", hint)
        return open_shard(path)
    except (OSError, ValueError) as error:  # no file system has such names
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = f'{source.name} names the shard "{printable(name)[:80]}": {reason}.'
        raise NanhuntError(message, "Download the index again.") from None
    except NanhuntError as error:
        raise NanhuntError(f"{source.name}: {error.message}", error.hint) from None


READER = FileReader("index", (), _is_index, _open, (".index.json",), _beside)
