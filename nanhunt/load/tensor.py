"""What every reader returns: named tensors whose values are read only when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

from nanhunt.dtypes.formats import DTYPES, FORMATS

FLOATING = DTYPES
INTEGER = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
BITS = {name: item.carrier for name, item in FORMATS.items() if not item.in_numpy}
"""Formats NumPy lacks, and the unsigned integer of the same width that carries their bits."""


@dataclass(frozen=True)
class Tensor:
    """One tensor in one file, not read yet."""

    file: str
    """The path as the user wrote it ("-" for standard input)."""
    name: str
    """Dotted name inside the file; "" where the file holds one unnamed tensor."""
    dtype: str
    """torch's spelling: one of FLOATING or INTEGER, or "complex64", "complex128" (refused as logits)."""
    shape: tuple[int, ...]
    read: Callable[[], npt.NDArray[Any]] = field(repr=False, compare=False)
    """Maps the values; called at most once."""

    @cached_property
    def data(self) -> npt.NDArray[Any]:
        """The values, memory-mapped where the format allows it, of ``shape``.

        dtype: NumPy's own for formats it has; the bits as in ``BITS`` for the others. Never written to.
        """
        return self.read()

    @property
    def label(self) -> str:
        """How messages name it: "ckpt.pt:model.head.weight"."""
        return f"{self.file}:{self.name}" if self.name else self.file
