"""Arrays that other processes need: written once to a file, mapped there, removed when the array is gone here."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
SMALL_BYTES = 1 << 16
"""Up to here an array travels with the work."""

_files: dict[int, str] = {}
_lock = threading.Lock()
"""Executors pickle in threads of their own."""


@dataclass(frozen=True)
class Portable:
    """An array that can be pickled cheaply, again and again."""

    array: Array

    def __reduce__(self) -> tuple[Any, ...]:
        """The values of a small one, the file of a large one."""
        if self.array.nbytes <= SMALL_BYTES:
            return Portable, (np.ascontiguousarray(self.array).reshape(self.array.shape),)
        return _mapped, (_file_of(self.array),)


def _file_of(array: Array) -> str:
    import tempfile

    with _lock:
        if id(array) not in _files:
            handle, path = tempfile.mkstemp(prefix="nanhunt-", suffix=".npy")
            with os.fdopen(handle, "wb") as stream:
                np.save(stream, array, allow_pickle=False)
            _files[id(array)] = path
            weakref.finalize(array, _remove, id(array), path)
        return _files[id(array)]


def _remove(key: int, path: str) -> None:
    _files.pop(key, None)
    with contextlib.suppress(OSError):
        Path(path).unlink()


@lru_cache(maxsize=64)
def _mapped(path: str) -> Portable:
    return Portable(np.load(path, mmap_mode="c", allow_pickle=False))
