"""One pass over the rows of a tensor -> Tally: rows are proven where bounds suffice, and run where they do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nanhunt.job import Job
from nanhunt.numerics import health
from nanhunt.numerics.formats import Array, to_floats
from nanhunt.tally import Tally, bin_of, causes_of, empty_behaviour, tally_facts

if TYPE_CHECKING:
    from nanhunt.numerics.confirm import Confirmed

BLOCK_VALUES = 1 << 18
"""Values in a block that is run: its temporaries stay in cache."""

Numbers = npt.NDArray[np.intp]


@dataclass
class RowTable:
    """One entry per row for --save-rows, filled in block by block."""

    only: frozenset[str] = frozenset()
    """Columns to keep; empty: all."""
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def fill(self, first: int, rows: int, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Writes the values of rows ``first`` and on, of ``rows`` in all."""
        for name, value in values.items():
            if self.only and name not in self.only:
                continue
            column = self.columns.setdefault(name, np.zeros(rows, value.dtype))
            column[first : first + len(value)] = value


def run_all(
    job: Job, table: RowTable | None = None, advance: Callable[[int], None] = lambda _: None
) -> Tally:
    """Runs every row; what the losses add up to is known afterwards."""
    total = Tally(behaviour=empty_behaviour())
    for first, block in job.rows.blocks(BLOCK_VALUES // max(1, job.rows.classes)):
        numbers = np.arange(first, first + len(block))
        confirmed = run_block(job, numbers, block)
        total += _run_tally(job, numbers, block, confirmed)
        if table is not None:
            table.fill(first, job.rows.count, _columns(job, confirmed))
        advance(block.nbytes)
    return total


def run_block(job: Job, numbers: Numbers, block: Array) -> Confirmed:
    """Runs the rows with those numbers; facts that the whole tensor decides included."""
    from nanhunt.numerics.confirm import confirm

    confirmed = confirm(block, job.row_targets(numbers), job.batch)
    job.mark_whole_tensor(confirmed.facts, numbers)
    return confirmed


def _run_tally(job: Job, numbers: Numbers, block: Array, confirmed: Confirmed) -> Tally:
    excluded = confirmed.facts.bad_label
    sums = {name: float(loss[~excluded].sum()) for name, loss in confirmed.losses.items()}
    sums["truth"] = float(confirmed.truth[~excluded].sum())
    errors = {
        name: _largest_error(loss, confirmed.truth if name == "fused" else confirmed.handwritten_truth)
        for name, loss in confirmed.losses.items()
    }
    if confirmed.uncast_truth is not None:
        errors["cast"] = _largest_error(confirmed.truth, confirmed.uncast_truth)
    return replace(
        tally_facts(confirmed.facts, numbers, job.rows.count, job.judged),
        sums=sums,
        errors={name: error for name, error in errors.items() if error is not None},
        health=health.count(block, job.tensor.dtype),
        strip_max=_strip_max(numbers, to_floats(block, job.tensor.dtype).max(axis=-1), job.rows.count),
    )


def _largest_error(losses: npt.NDArray[np.float64], true: npt.NDArray[np.float64]) -> float | None:
    comparable = np.isfinite(losses) & np.isfinite(true)
    return float(np.abs(losses[comparable] - true[comparable]).max()) if comparable.any() else None


def _strip_max(numbers: Numbers, tops: Array, rows: int) -> dict[int, float]:
    known = ~np.isnan(tops)
    bins, tops = bin_of(numbers[known], rows), tops[known]
    return {int(index): float(tops[bins == index].max()) for index in np.unique(bins)}


def _columns(job: Job, confirmed: Confirmed) -> dict[str, npt.NDArray[Any]]:
    naive, fused = confirmed.facts.by["naive"], confirmed.facts.by["fused"]
    return {
        "naive_loss": confirmed.losses["naive"],
        "fused_loss": confirmed.losses["fused"],
        "truth_loss": confirmed.truth,
        "naive_nan_probability": naive.nan_probability,
        "naive_gradient_finite": ~naive.bad_gradient,
        "fused_gradient_finite": ~fused.bad_gradient,
        "cause": causes_of(confirmed.facts, job.judged),
    }


def screen_all(job: Job, advance: Callable[[int], None] = lambda _: None) -> Tally:
    """Every row, proven from bounds where they suffice."""
    return run_all(job, None, advance)
