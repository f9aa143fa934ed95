"""Which files this process has loaded tensors from, and whether a bad tensor came out of one.

Only paths are noted while the script runs. After a fault the files are read again: what a report says of a file was
seen in it, under whatever name the model knows the tensor now.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch

from nanhunt.dtypes.convert import to_torch
from nanhunt.errors import NanhuntError
from nanhunt.load.opening import open_path
from nanhunt.load.tensor import COMPLEX, FLOATING, Tensor

from .family import when_imported
from .numbers import checkable, finite
from .recorder import Recorders
from .unseen import hide

MAX_FILES = 1000
"""Noted; a data set of one file a sample must not grow without end."""
MAX_READ = 64
"""Files that are read again: those of one checkpoint in shards."""


@dataclass(frozen=True)
class Origin:
    """A tensor of a file, that a bad tensor in memory was loaded from."""

    file: str
    """As the script named it."""
    tensor: str
    """Its name in the file; "" where it is the only one."""
    largest: float | None = None
    """Where the file's numbers are finite: the largest magnitude of those that are infinite in memory."""

    @property
    def sentence(self) -> str:
        """What a report says of it."""
        of = f"tensor {self.tensor!r} of " if self.tensor else ""
        if self.largest is None:
            return f"it was loaded so: {of}{self.file} holds the same"
        return f"it was loaded from {of}{self.file}, which is finite: {self.largest:g} overflowed when it was cast"


class Loaded:
    """The files that were read while ``followed``."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, int]] = {}
        """Path -> modification time in ns and size in bytes when it was loaded."""

    @contextlib.contextmanager
    def followed(self, recorders: Recorders) -> Iterator[None]:
        """Note what torch.load and safetensors open; the latter only where the script imports it."""
        undo: list[Callable[[], None]] = []
        self._patch(torch, "load", recorders, undo)
        self._patch(torch.serialization, "load", recorders, undo)

        def safetensors_imported() -> None:
            for name in ("safetensors", "safetensors.torch"):
                if name in sys.modules:
                    self._patch(sys.modules[name], "safe_open", recorders, undo)

        forget = when_imported("safetensors", safetensors_imported)
        try:
            yield
        finally:
            forget()
            while undo:
                undo.pop()()

    def _patch(self, owner: Any, name: str, recorders: Recorders, undo: list[Callable[[], None]]) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def load(file: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                out = original(file, *args, **kwargs)
            except BaseException as error:
                hide(error)
                raise
            if not recorders.recorder.paused:
                self.note(file)
            return out

        def restore() -> None:
            if getattr(owner, name) is load:
                setattr(owner, name, original)

        setattr(owner, name, load)
        undo.append(restore)

    def note(self, file: Any) -> None:
        """Remember a file by its path, or that of an open file; what has none (a BytesIO) has nothing to be named."""
        path = file if isinstance(file, str | os.PathLike) else getattr(file, "name", None)
        if isinstance(path, str | os.PathLike) and len(self.files) < MAX_FILES:
            with contextlib.suppress(OSError, ValueError):
                self.files[str(os.fspath(path))] = _stamp(path)

    def origin(self, tensor: torch.Tensor, name: str) -> Origin | None:
        """Where a bad tensor, called ``name`` in memory, was loaded from.

        None where no file that is as it was holds such a tensor. Reads only those of its shape.
        """
        unchanged = [file for file, stamp in self.files.items() if _stamp_now(file) == stamp]
        overflown = None
        for file in reversed(unchanged[-MAX_READ:]):
            for stored in _candidates(file, tensor, name):
                found = _compared(stored, tensor, name)
                if found is not None and found.largest is None:
                    return found
                overflown = overflown or found
        return overflown


def _candidates(file: str, tensor: torch.Tensor, name: str) -> list[Tensor]:
    """The tensors of a file that have the shape, those of the most similar name first."""
    try:
        tensors = open_path(file).tensors.values()
    except (NanhuntError, OSError):
        return []
    alike = [
        one for one in tensors if one.shape == tuple(tensor.shape) and one.dtype in (*FLOATING, *COMPLEX)
    ]
    return sorted(alike, key=lambda one: -_common_end(one.name, name))


def _compared(stored: Tensor, tensor: torch.Tensor, name: str) -> Origin | None:
    try:
        values = to_torch(stored.data, stored.dtype)
        same = torch.equal(_kinds(values), _kinds(tensor.detach().cpu()))
    except (NanhuntError, OSError, RuntimeError):
        return None
    if same:
        return Origin(stored.file, stored.name)
    called_alike = _common_end(stored.name, name) >= min(len(stored.name), len(name)) > 0
    if not called_alike or not checkable(values) or not finite(values):
        return None
    lost = values[tensor.detach().cpu().isinf()].abs()
    overflown = lost.numel() and float(lost.min()) > torch.finfo(torch.float16).max
    return Origin(stored.file, stored.name, float(lost.max())) if overflown else None


def _kinds(values: torch.Tensor) -> torch.Tensor:
    """Of each value what kind it is: 0 finite, 1 NaN, 2 inf, 3 -inf."""
    values = torch.view_as_real(values) if values.is_complex() else values.float()
    return values.isnan() + 2 * values.isposinf() + 3 * values.isneginf()


def _common_end(one: str, other: str) -> int:
    """How many characters at the end are the same."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _stamp(path: Any) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116 - what torch.load takes, a path or not
    return status.st_mtime_ns, status.st_size


def _stamp_now(path: str) -> tuple[int, int] | None:
    try:
        return _stamp(path)
    except OSError:
        return None
