"""What judging is told, and what it gives back: the same for every operation. Standard library only at the top."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from nanhunt.load.tensor import Tensor
from nanhunt.operations.scaling import Cast, casts
from nanhunt.results.tensor import TensorReport

if TYPE_CHECKING:
    import numpy.typing as npt

    from nanhunt.operations.registry import OperationOptions

Advance = Callable[[int], None]
"""Told of bytes that are done."""


@dataclass
class RowTable:
    """One entry per row for --save-rows, filled in block by block."""

    only: frozenset[str] = frozenset()
    """Columns to keep; empty: all."""
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """By name, each (rows,)."""

    def fill(self, first: int, rows: int, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Writes the values of rows ``first`` and on, of ``rows`` in all."""
        import numpy as np

        for name, value in values.items():
            if self.only and name not in self.only:
                continue
            column = self.columns.setdefault(name, np.zeros(rows, value.dtype))
            column[first : first + len(value)] = value


Tables: TypeAlias = dict[tuple[str, str], RowTable]
"""By (tensor label, dtype)."""


def _nobody(_: int) -> None:
    """Progress that nobody wants to know of."""


@dataclass(frozen=True)
class Run:
    """How tensors are judged, and who is told."""

    options: OperationOptions
    """Those of the file."""
    executor: Executor
    """Who judges units of work."""
    compares: bool = False
    """Every way of writing it is run on every row, and its loss is told; numbers that belong to no loss are left."""
    advance: Advance = _nobody
    tables: Tables | None = None
    """Filled in for --save-rows; None: not wanted."""

    def dtypes(self, tensor: Tensor) -> tuple[str, ...]:
        """Those to judge it in: what --dtype says, else its own."""
        return tuple(self.options.dtype) or (tensor.dtype,)

    def casts(self, tensor: Tensor) -> tuple[Cast, ...]:
        """Those dtypes, and how numbers get into them; of float8 both ways where they are compared."""
        return tuple(
            cast
            for dtype in self.dtypes(tensor)
            for cast in casts(tensor, dtype, self.options.scaling, self.compares)
        )

    def codes(self, operation: str) -> frozenset[str]:
        """The rules of that operation to look for. Raises NanhuntError for a --select or --ignore that means none."""
        from nanhunt.operations.rules import chosen

        return chosen(operation, self.options.select, self.options.ignore)

    def table(self, tensor: Tensor, dtype: str) -> RowTable | None:
        """The table of that judgement; None where none is wanted."""
        return None if self.tables is None else self.tables.setdefault((tensor.label, dtype), RowTable())


@dataclass(frozen=True)
class Failed:
    """A tensor that could not be judged; the others still are."""

    label: str
    error: Exception


Outcome: TypeAlias = TensorReport | Failed
