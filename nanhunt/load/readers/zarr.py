"""zarr, a folder of chunks (zarr.dev, versions 2 and 3), by the zarr package: the extra nanhunt[zarr]."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nanhunt.errors import NanhuntError
from nanhunt.load.arrays import CHUNK, unpacked
from nanhunt.load.container import Container, RefusedTensor
from nanhunt.load.reader import FolderReader, Reading
from nanhunt.load.source import Folder
from nanhunt.load.tensor import BITS, COMPLEX, FLOATING, INTEGER, Tensor
from nanhunt.load.wording import printable

_MARKS = ("zarr.json", ".zgroup", ".zarray")


def _open(folder: Folder, reading: Reading) -> Container:
    """All arrays below, under dotted names; chunks are unpacked through a temporary file when they are read."""
    try:
        import zarr
    except ImportError:
        hint = "Install what reads it: pip install 'nanhunt[zarr]'"
        raise NanhuntError(f"{folder.name} is a zarr folder, which needs zarr.", hint) from None
    tensors: dict[str, Tensor] = {}
    refused: dict[str, RefusedTensor] = {}
    try:
        for name, array in _arrays(zarr, zarr.open(folder.file, mode="r")):
            if array.dtype.name in (*FLOATING, *INTEGER, *COMPLEX):
                tensors[name] = _tensor(folder, name, array)
            else:
                what = printable(str(array.dtype))[:40]
                message = f"{folder.name}:{printable(name)} is {what}, which nanhunt cannot judge."
                refused[name] = RefusedTensor(message, "Store it as float32.")
    except NanhuntError:
        raise
    except Exception as error:  # zarr and its codecs raise anything on damaged metadata
        raise _damaged(folder, error) from None
    return Container(folder.file, tensors, "zarr", refused)


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
        if not shape:
            stream.write(np.asarray(array[...]).astype(stored).tobytes())
            return
        # Whole chunks at a time, so that none is unpacked twice.
        step = max(array.chunks[0], CHUNK // max(1, array.nbytes // shape[0]))
        for first in range(0, shape[0], step):
            block = np.ascontiguousarray(array[first : first + step])
            stream.write((block.view(stored) if dtype in BITS else block.astype(stored, copy=False)).data)

    def read() -> npt.NDArray[Any]:
        try:
            return unpacked(folder, copy, stored, shape)
        except (NanhuntError, OSError, MemoryError):
            raise
        except Exception as error:  # as above
            raise _damaged(folder, error) from None

    return Tensor(folder.file, name, dtype, shape, read)


def _damaged(folder: Folder, error: Exception) -> NanhuntError:
    why = printable(str(error).splitlines()[0])[:80] if str(error) else type(error).__name__
    return NanhuntError(f"{folder.name} is a zarr folder that is damaged: {why}.", "Copy or write it again.")


READER = FolderReader("zarr", lambda folder: any(mark in folder.names for mark in _MARKS), _open)
