"""What every reader returns: named tensors whose values are read only when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from nanhunt.dtypes.formats import DTYPES, FORMATS
from nanhunt.load.listing import is_url

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from nanhunt.load.container import Container
    from nanhunt.load.rows import RowSource
    from nanhunt.load.shards import Shard
    from nanhunt.load.spool import Portable

FLOATING = DTYPES
INTEGER = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
COMPLEX = ("complex64", "complex128")
BITS = {name: item.carrier for name, item in FORMATS.items() if not item.in_numpy}
"""Formats NumPy lacks, and the unsigned integer of the same width that carries their bits."""


@dataclass(frozen=True)
class Address:
    """What ``open_path`` was told."""

    path: str
    stored_dtype: str | None


@dataclass(frozen=True)
class Tensor:
    """One tensor in one file, not read yet."""

    file: str
    """The path as the user wrote it ("-" for standard input)."""
    name: str
    """Dotted name inside the file; "" where the file holds one unnamed tensor."""
    dtype: str
    """torch's spelling: one of FLOATING, INTEGER or COMPLEX."""
    shape: tuple[int, ...]
    read: Callable[[], npt.NDArray[Any]] = field(repr=False, compare=False)
    """Maps the values; called at most once."""
    pieces: Callable[[], Sequence[Shard]] | None = field(default=None, repr=False, compare=False)
    """Of a tensor that lies in several places: maps them. ``read`` then puts them together in a file."""
    ranges: Callable[[int, int], npt.NDArray[Any]] | None = field(default=None, repr=False, compare=False)
    """Of a tensor far away: ``ranges(start, stop)`` fetches those values alone, flat, in C order."""
    note: str = ""
    """What a reader of the report must know of how the values were read."""
    owner: str = ""
    """The parameter whose state an optimizer keeps here, where the file tells which."""
    eps: float | None = None
    """What that optimizer adds to the denominator of its step, where the file tells it."""
    scales: str = ""
    """"positive" or "signed" where these are the scales of quantised blocks, and not the values themselves."""
    address: Address | None = field(default=None, repr=False, compare=False)
    """How another process opens it; None: the values themselves must get there."""

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled tensor is its address, or its values in a file that is mapped where it is unpickled."""
        if self.address is not None:
            return _opened, (self.address, self.name)
        from nanhunt.load.spool import Portable

        return _of_values, (self.file, self.name, self.dtype, self.note, Portable(self.data))

    @cached_property
    def data(self) -> npt.NDArray[Any]:
        """The values, memory-mapped where the format allows it, of ``shape``.

        dtype: NumPy's own for formats it has; the bits as in ``BITS`` for the others. Never written to.
        """
        return self.read()

    @cached_property
    def shards(self) -> Sequence[Shard]:
        """The mapped pieces; empty for a tensor in one place."""
        return () if self.pieces is None else self.pieces()

    def flat(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Values ``start`` to ``stop`` - 1 in C order, shape (stop - start,); a copy where they lie otherwise."""
        if self.ranges is not None:
            return self.ranges(start, stop)
        if self.shards:
            from nanhunt.load.shards import ShardRows

            return ShardRows(self.shards, self.shape, -1).values(start, stop)
        data = self.data
        if data.flags.c_contiguous or data.ndim == 1:
            return data.reshape(-1)[start:stop]
        rows = self.rows(-1)
        first, last = start // rows.classes, -(-stop // rows.classes)
        skipped = start - first * rows.classes
        return rows.range(first, last).reshape(-1)[skipped : skipped + stop - start]

    def release(self, values: npt.NDArray[Any]) -> None:
        """Gives the memory of values that ``flat`` returned back, where they are mapped: for those not needed soon."""
        if self.address is not None:  # ours, and not an array of the user's
            from nanhunt.load.arrays import release

            for each in (values, *(shard.values for shard in self.shards)):
                release(each)

    def runs(self, starts: npt.NDArray[np.intp], length: int) -> npt.NDArray[Any]:
        """For every start the ``length`` values from it on, as ``flat`` gives them, shape (len(starts), length)."""
        import numpy as np

        found = np.empty((len(starts), length), BITS.get(self.dtype, self.dtype))
        for row, start in zip(found, starts.tolist(), strict=True):
            row[:] = self.flat(start, start + length)
        return found

    def rows(self, class_axis: int) -> RowSource:
        """The tensor as rows of classes; in pieces, only the rows asked for are put together."""
        from nanhunt.load.rows import RangeRows, Rows

        if self.ranges is not None and self.shape and class_axis in (-1, len(self.shape) - 1):
            return RangeRows(self.ranges, self.shape)
        if self.shards:
            from nanhunt.load.shards import ShardRows

            return ShardRows(self.shards, self.shape, class_axis)
        return Rows(self.data, class_axis)

    @property
    def itemsize(self) -> int:
        """Bytes of one value, known before any is read."""
        import numpy as np

        return np.dtype(BITS.get(self.dtype, self.dtype)).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all values as stored."""
        return math.prod(self.shape) * self.itemsize

    @property
    def label(self) -> str:
        """How messages name it: "ckpt.pt:model.head.weight"."""
        return f"{self.file}:{self.name}" if self.name else self.file


def as_real(tensor: Tensor) -> Tensor:
    """Complex values as torch.view_as_real gives them: real and imaginary part in a last dimension, not copied."""

    def read() -> npt.NDArray[Any]:
        import numpy as np

        real = np.asarray(tensor.data).real
        steps = (*real.strides, real.itemsize)
        return np.lib.stride_tricks.as_strided(real, (*tensor.shape, 2), steps)

    part = "float32" if tensor.dtype == "complex64" else "float64"
    note = f"{tensor.dtype}, judged as torch.view_as_real gives it: the last dimension is real, imaginary"
    return Tensor(tensor.file, tensor.name, part, (*tensor.shape, 2), read, note=note)


def _of_values(file: str, name: str, dtype: str, note: str, values: Portable) -> Tensor:
    return Tensor(file, name, dtype, values.array.shape, lambda: values.array, note=note)


def _opened(address: Address, name: str) -> Tensor:
    return _container(address).tensors[name]


@lru_cache(maxsize=16)
def _container(address: Address) -> Container:
    from nanhunt.load.opening import open_path

    found = open_path(address.path, address.stored_dtype)
    if is_url(address.path):
        from nanhunt.load import remote

        remote.read_by_pieces(address.path)
    return found
