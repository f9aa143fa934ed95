"""Files to time on: logits in .npy and .safetensors, labels, checkpoints; written block by block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK_VALUES = 1 << 23
SCALE = 1.0
"""Standard deviation of logits; with N(0, 1) and 32,000 classes a float16 sum of exps stays just below overflow."""
WEIGHT_SCALE = 0.02


def labels(path: Path, rows: int, classes: int) -> Path:
    """int64 labels below half of the classes, so that a mask on the upper half never hides one."""
    np.save(path, np.random.default_rng(1).integers(0, max(1, classes // 2), rows))
    return path


def logits(path: Path, rows: int, classes: int, *, kind: str = "healthy") -> Path:
    """A float32 .npy. kind: "healthy", "some-bad" (1 % of rows + 100), "masked" (-inf on half), "all-bad" (+ 100)."""
    file = np.lib.format.open_memmap(path, "w+", np.dtype(np.float32), (rows, classes))
    for first, block in _blocks(rows, classes):
        if kind == "masked":
            block[:, classes // 2 :] = -np.inf
        elif kind == "all-bad":
            np.add(block, 100, out=block)
        elif kind == "some-bad":
            block[(np.arange(first, first + len(block)) % 100) == 50] += 100
        file[first : first + len(block)] = block
    file.flush()
    return path


def half_logits(path: Path, rows: int, classes: int, dtype: str) -> Path:
    """float16 or bfloat16 logits as the only tensor of a .safetensors: a .npy cannot say bfloat16."""
    blocks = (block for _, block in _blocks(rows, classes))
    return _safetensors(path, {"logits": ((rows, classes), dtype)}, (_half(block, dtype) for block in blocks))


def weights(path: Path, size: int, width: int) -> Path:
    """A float32 .safetensors of about ``size`` bytes with a transformer's layers: few large tensors, many small."""
    layer = {
        "attention.qkv.weight": (3 * width, width), "attention.qkv.bias": (3 * width,),
        "attention.out.weight": (width, width), "attention.out.bias": (width,),
        "mlp.up.weight": (4 * width, width), "mlp.up.bias": (4 * width,),
        "mlp.down.weight": (width, 4 * width), "mlp.down.bias": (width,),
        "norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,), "norm2.bias": (width,),
    }  # fmt: skip
    per_layer = 4 * sum(int(np.prod(shape)) for shape in layer.values())
    layers = max(1, round(size / per_layer))
    shapes = {
        f"layers.{number}.{name}": (shape, "float32")
        for number in range(layers)
        for name, shape in layer.items()
    }
    return _safetensors(path, shapes, (_weight(name, shape) for name, (shape, _) in shapes.items()))


def checkpoint(path: Path, source: Path) -> Path:
    """The tensors of a float32 .safetensors as torch.save writes them."""
    import torch

    with source.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(length))
    bytes_ = np.memmap(source, np.uint8, "c", 8 + length)
    tensors = {
        name: torch.from_numpy(bytes_[slice(*entry["data_offsets"])].view(np.float32)).reshape(entry["shape"])
        for name, entry in header.items()
    }
    torch.save(tensors, path)
    return path


def _blocks(rows: int, classes: int) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """(first row, rows): one drawn block again and again, since drawing costs more than everything timed."""
    step = max(1, BLOCK_VALUES // classes)
    drawn = np.random.default_rng(0).standard_normal((min(step, rows), classes), np.float32) * np.float32(
        SCALE
    )
    for first in range(0, rows, step):
        yield first, drawn[: rows - first].copy()


def _half(block: npt.NDArray[np.float32], dtype: str) -> bytes:
    if dtype == "float16":
        return block.astype(np.float16).tobytes()
    return (block.view(np.uint32) >> np.uint32(16)).astype(np.uint16).tobytes()


def _weight(name: str, shape: tuple[int, ...]) -> bytes:
    if len(shape) == 1:
        return np.full(shape, 1.0 if name.startswith("norm") else 0.0, np.float32).tobytes()
    drawn = np.random.default_rng(len(name)).standard_normal(min(1 << 20, int(np.prod(shape))), np.float32)
    return np.resize(drawn * np.float32(WEIGHT_SCALE), shape).tobytes()


def _safetensors(path: Path, tensors: dict[str, tuple[tuple[int, ...], str]], parts: Iterator[bytes]) -> Path:
    codes = {"float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2)}
    header: dict[str, object] = {}
    end = 0
    for name, (shape, dtype) in tensors.items():
        code, width = codes[dtype]
        begin, end = end, end + width * int(np.prod(shape))
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for part in parts:
            stream.write(part)
    return path
