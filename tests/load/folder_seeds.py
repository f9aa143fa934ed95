"""Small whole folders of every format that is one: what fuzzing of folders begins with."""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import pickle
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes

Files = dict[str, bytes]
"""Contents by path below the folder."""
HALVES = {(0, 0): torch.arange(6.0).reshape(2, 3), (2, 0): torch.ones(1, 3)}
"""Two ranks' parts of a tensor of shape (3, 3)."""
NAMES = ("dcp", "dcp-safetensors", "sharded-safetensors", "index", "zarr-2", "zarr-3")


@functools.cache
def folder(name: str) -> Files:
    """One of ``NAMES``; empty where its package is not installed."""
    if name.startswith("zarr"):
        return _zarr(int(name[-1])) if importlib.util.find_spec("zarr") else {}
    return {
        "dcp": lambda: _dcp(map(_saved, HALVES.values())),
        "dcp-safetensors": lambda: _dcp(_boxes("w")),
        "sharded-safetensors": lambda: {
            f"shard-{rank:05}-model-00001-of-00001.safetensors": box
            for rank, box in enumerate(_boxes("w"), 1)
        },
        "index": _index,
    }[name]()


def _saved(values: torch.Tensor) -> bytes:
    stream = io.BytesIO()
    torch.save(values, stream)
    return stream.getvalue()


def _boxes(name: str) -> Iterable[bytes]:
    for offsets, values in HALVES.items():
        said = json.dumps({name: {"saved_offsets": offsets}})
        yield safetensors_bytes({name: values}, {"DCP_SHARDING_INFO": said})


def _dcp(contents: Iterable[bytes]) -> Files:
    from torch.distributed.checkpoint import filesystem, metadata

    found: Files = {}
    storage, chunks = {}, []
    for rank, ((offsets, values), content) in enumerate(zip(HALVES.items(), contents, strict=True)):
        found[f"__{rank}_0.distcp"] = content
        index = metadata.MetadataIndex("w", torch.Size(offsets))
        storage[index] = filesystem._StorageInfo(f"__{rank}_0.distcp", 0, len(content))
        chunks.append(metadata.ChunkStorageMetadata(torch.Size(offsets), values.shape))
    properties = metadata.TensorProperties(dtype=torch.float32)
    entry = metadata.TensorStorageMetadata(properties, torch.Size((3, 3)), chunks)
    return {".metadata": pickle.dumps(metadata.Metadata({"w": entry}, None, storage)), **found}


def _index() -> Files:
    weight_map = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    shards = {f"{number}.safetensors": {name: torch.ones(2, 3)} for number, name in ((1, "a"), (2, "b"))}
    return {
        "model.safetensors.index.json": json.dumps(weight_map).encode(),
        **{name: safetensors_bytes(tensors) for name, tensors in shards.items()},
    }


def _zarr(version: int) -> Files:
    import zarr

    with tempfile.TemporaryDirectory() as place:
        group = zarr.open_group(place, mode="w", zarr_format=version)
        for name, values in (("w", np.arange(12.0).reshape(4, 3)), ("n", np.arange(5))):
            made = group.create_array(name, shape=values.shape, chunks=(2,) * values.ndim, dtype=values.dtype)
            made[:] = values
        return {
            str(path.relative_to(place)): path.read_bytes()
            for path in Path(place).rglob("*")
            if path.is_file()
        }


def write(place: Path, files: Files) -> str:
    """Puts a folder there; the path to open."""
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    index = place / "model.safetensors.index.json"
    return str(index if index.exists() else place)
