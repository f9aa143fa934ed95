"""zarr, a folder of chunks (zarr.dev, versions 2 and 3), by the zarr package: the extra nanhunt[zarr]."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nanhunt.load.arrays import slices, unpacked
from nanhunt.load.container import Container, RefusedTensor
from nanhunt.load.extras import is_plausible, required, whole
from nanhunt.load.listing import bytes_at
from nanhunt.load.reader import FolderReader, Reading
from nanhunt.load.source import Folder
from nanhunt.load.tensor import BITS, COMPLEX, FLOATING, INTEGER, Tensor
from nanhunt.load.wording import printable

_MARKS = ("zarr.json", ".zgroup", ".zarray")
_WHAT = "a zarr folder"


def _open(folder: Folder, reading: Reading) -> Container:
    """All arrays below, under dotted names; chunks are unpacked through a temporary file when they are read."""
    zarr = required("zarr", "zarr", folder, _WHAT)
    tensors: dict[str, Tensor] = {}
    refused: dict[str, RefusedTensor] = {}
    packed = bytes_at(folder.file) or 0
    with whole(folder, _WHAT):
        for name, array in _arrays(zarr, zarr.open(folder.file, mode="r")):
            if not is_plausible(_claimed(array), packed):
                message = f"{folder.name}:{printable(name)} claims more than its {packed:,} bytes can hold."
                refused[name] = RefusedTensor(message, "Write it again, with the chunks that are missing.")
            elif array.dtype.name in (*FLOATING, *INTEGER, *COMPLEX):
                tensors[name] = _tensor(folder, name, array)
            else:
                what = printable(str(array.dtype))[:40]
                message = f"{folder.name}:{printable(name)} is {what}, which nanhunt cannot judge."
                refused[name] = RefusedTensor(message, "Store it as float32.")
    return Container(folder.file, tensors, "zarr", refused)


def _claimed(array: Any) -> int:
    """Bytes of all values, or of one chunk where that is more: it is unpacked whole."""
    chunk = getattr(array, "shards", None) or array.chunks or ()
    itemsize: int = array.dtype.itemsize
    values: int = max(math.prod(array.shape), math.prod(chunk))
    return values * itemsize


def _arrays(zarr: Any, node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, zarr.Array):
        yield "", node
        return
    for path, member in sorted(node.members(max_depth=None)):
        if isinstance(member, zarr.Array):
            yield path.replace("/", "."), member


def _tensor(folder: Folder, name: str, array: Any) -> Tensor:
    dtype, shape = array.dtype.name, tuple(array.shape)
    stored = np.dtype(BITS.get(dtype, dtype))

    def copy(stream: IO[bytes]) -> None:
        for index in slices(shape, (array.chunks or (1,))[0], stored.itemsize):
            block = np.ascontiguousarray(array[index])
            stream.write(
                (block.view(stored) if dtype in BITS else block.astype(stored, copy=False)).tobytes()
            )

    def read() -> npt.NDArray[Any]:
        with whole(folder, _WHAT):
            return unpacked(folder, copy, stored, shape)

    return Tensor(folder.file, name, dtype, shape, read)


READER = FolderReader("zarr", lambda folder: any(mark in folder.names for mark in _MARKS), _open)
