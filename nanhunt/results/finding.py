"""What is wrong with the units of a tensor, and what was tried against it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.StrEnum):
    """How bad a finding is; ``rank`` orders them."""

    NOTE = "note"
    """Silent or near: nothing is infinite or NaN, yet the numbers are wrong or about to be."""
    WARNING = "warning"
    """What people write first breaks; PyTorch's own call for it does not."""
    ERROR = "error"
    """Even PyTorch's own is broken, or the input is."""

    @property
    def rank(self) -> int:
        """0 for note, 1 for warning, 2 for error."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class RemedyResult:
    """A remedy as it was run on the failing rows."""

    title: str
    snippet: str
    """Code to paste."""
    works: bool
    """Whether no row was bad afterwards."""
    rows: int
    """How many failing rows it was run on (at most 1,000)."""
    bad_rows_after: int
    max_loss_error: float | None
    """Largest absolute difference from the true loss: of those rows together, and of the first ones alone.
    0 where it is within the rounding bound, 64 u max(1, |loss|, ln classes): what is left then is a processor's.

    None when it has no loss."""
    outcome: str = ""
    """What is still wrong where it does not work: "loss still NaN", "loss finite but wrong", "gradient 0"."""
    changes: str = ""
    """How its objective differs from the user's; "" if it does not."""


@dataclass(frozen=True)
class Finding:
    """One rule that holds for some rows (or, in a tensor that is not logits, some values)."""

    code: str
    name: str
    severity: Severity
    count: int
    """Rows (values, for role "values") for which the rule holds."""
    rows: tuple[int, ...]
    """The first ``--max-rows`` of them, as flat numbers over the leading dimensions, ascending."""
    message: str
    """The arithmetic of the first one: "row 1: max 1000 > 88.72, the largest x whose exp is finite in float32"."""
    remedies: tuple[RemedyResult, ...] = ()
    known: bool = False
    """Already in the ``--baseline`` report: shown, but it does not count for the exit code."""
