"""One pass over the rows of a tensor -> Tally: rows are proven where bounds suffice, and run where they do not."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.convert import Array, to_floats
from nanhunt.dtypes.errstate import ignoring
from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.errors import Interrupted
from nanhunt.operations.caller import defaults_of_libraries, one_torch_thread
from nanhunt.operations.cross_entropy.extremes import extremes
from nanhunt.operations.cross_entropy.facts import select
from nanhunt.operations.cross_entropy.job import Job
from nanhunt.operations.cross_entropy.screen import Screen, screen
from nanhunt.operations.cross_entropy.tally import causes_of, empty_behaviour, tally_facts
from nanhunt.operations.exact import Exact
from nanhunt.operations.run import RowTable
from nanhunt.operations.tally import Tally, bin_of
from nanhunt.operations.values import health

if TYPE_CHECKING:
    from nanhunt.operations.cross_entropy.confirm import Confirmed

BLOCK_VALUES = 1 << 18
"""Values in a block that is run: its temporaries stay in cache."""

SCREEN_BYTES = 1 << 24
"""A block that is screened; it is read in smaller parts, and judged in one."""

Numbers = npt.NDArray[np.intp]
Advance = Callable[[int], None]
"""Told how many bytes are done."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Unit:
    """Rows of a job, to be judged anywhere: it can be pickled, and ``run_unit`` and ``screen_unit`` judge it."""

    job: Job
    first: int
    last: int
    """The row after the last."""

    @property
    def nbytes(self) -> int:
        """Bytes as stored."""
        return (self.last - self.first) * self.job.rows.classes * self.job.tensor.itemsize


@dataclass(frozen=True)
class Ran:
    """A unit whose rows were all run."""

    tally: Tally
    columns: dict[str, npt.NDArray[Any]]
    """For a RowTable; empty unless asked for."""
    added: dict[str, npt.NDArray[Any]]
    """What a reduction adds up; empty unless asked for."""


def run_unit(unit: Unit, columns: bool = False, added: bool = False) -> Ran:
    """Runs every row of the unit."""
    job, numbers = unit.job, np.arange(unit.first, unit.last)
    with defaults_of_libraries(), one_torch_thread():
        block = job.block(unit.first, unit.last)
        confirmed = run_block(job, numbers, block)
        tally = _run_tally(job, numbers, block, confirmed)
        return Ran(tally, _columns(job, confirmed) if columns else {}, confirmed.added if added else {})


def run_all(
    job: Job,
    executor: Executor,
    table: RowTable | None = None,
    advance: Advance = lambda _: None,
    added: RowTable | None = None,
) -> Tally:
    """Runs every row; what the losses add up to is known afterwards. ``added`` takes what a reduction adds up.

    Raises Interrupted, with what is known, on Ctrl-C.
    """
    job.batch  # noqa: B018 - cached: no other process need know the targets of all rows
    total, seen = Tally(behaviour=empty_behaviour()), 0
    work = functools.partial(run_unit, columns=table is not None, added=added is not None)
    units = _units(job, BLOCK_VALUES)
    try:
        with one_torch_thread():
            for unit, ran in zip(units, executor.map(work, units), strict=True):
                advance(unit.nbytes)
                total += ran.tally
                for kept, values in ((table, ran.columns), (added, ran.added)):
                    if kept is not None:
                        kept.fill(unit.first, job.rows.count, values)
                seen = unit.last
    except KeyboardInterrupt:
        raise _interrupted(job, seen, total, 0) from None
    return total


def _units(job: Job, values: int) -> list[Unit]:
    return [Unit(job, first, last) for first, last in job.ranges(values)]


def _interrupted(job: Job, seen: int, total: Tally, waiting: int) -> Interrupted:
    """What is known after the first ``seen`` rows, ``waiting`` of which were still to be run."""
    if not seen:
        return Interrupted()
    rest = f", {waiting:,} were still to be run" if waiting else ""
    return Interrupted(
        f"{job.tensor.label} in {job.dtype}: of the first {seen:,} of {job.rows.count:,} rows "
        f"{total.affected:,} have findings{rest}"
    )


def run_rows(job: Job, numbers: Numbers) -> Tally:
    """Runs the rows with those numbers."""
    with defaults_of_libraries(), one_torch_thread():
        block = job.rows.take(numbers)
        return _run_tally(job, numbers, block, run_block(job, numbers, block))


def run_block(job: Job, numbers: Numbers, block: Array) -> Confirmed:
    """Runs the rows with those numbers; facts that the whole tensor decides included."""
    from nanhunt.operations.cross_entropy.confirm import confirm

    confirmed = confirm(block, job.row_targets(numbers), job.batch)
    job.mark_whole_tensor(confirmed.facts, numbers)
    return confirmed


@ignoring("over", "invalid")  # losses near the largest float64 add up to inf, which is their sum
def _run_tally(job: Job, numbers: Numbers, block: Array, confirmed: Confirmed) -> Tally:
    excluded = confirmed.facts.bad_label
    sums = {name: Exact.of(float(loss[~excluded].sum())) for name, loss in confirmed.losses.items()}
    finite = confirmed.losses["fused"][np.isfinite(confirmed.losses["fused"])]
    sums["truth"] = Exact.of(float(confirmed.truth[~excluded].sum()))
    errors = {name: _largest_error(loss, confirmed.truth) for name, loss in confirmed.losses.items()}
    if confirmed.uncast_truth is not None:
        errors["cast"] = _largest_error(confirmed.truth, confirmed.uncast_truth)
    wrong = {name: _wrong_rows(job, loss, confirmed.truth) for name, loss in confirmed.losses.items()}
    return replace(
        tally_facts(confirmed.facts, numbers, job.rows.count, job.judged, wrong),
        sums=sums,
        loss_low=Exact.of(float(finite.sum())),
        loss_high=Exact.of(float(np.abs(finite).sum())),  # negative class weights make negative losses
        errors={name: error for name, error in errors.items() if error is not None},
        health=health.count(block, job.tensor.dtype),
        strip_max=_strip_max(
            numbers, to_floats(block, job.tensor.dtype).max(axis=1).reshape(-1), job.rows.count
        ),
    )


def _wrong_rows(job: Job, losses: npt.NDArray[np.float64], true: npt.NDArray[np.float64]) -> int:
    """Rows whose loss is finite, and further from a finite truth than its rounding bound."""
    from nanhunt.operations.cross_entropy.confirm import LOSS_BOUND

    u = compute_format(job.dtype).unit_roundoff
    bound = LOSS_BOUND * u * np.maximum(np.abs(true), max(1.0, math.log(job.rows.classes)))
    return int(np.count_nonzero(np.isfinite(losses) & np.isfinite(true) & (np.abs(losses - true) > bound)))


def _largest_error(losses: npt.NDArray[np.float64], true: npt.NDArray[np.float64]) -> float | None:
    comparable = np.isfinite(losses) & np.isfinite(true)
    return float(np.abs(losses[comparable] - true[comparable]).max()) if comparable.any() else None


def _strip_max(numbers: Numbers, tops: Array, rows: int) -> dict[int, float]:
    known = ~np.isnan(tops)
    bins, tops = bin_of(numbers[known], rows), tops[known]
    present = np.flatnonzero(np.bincount(bins))  # np.unique would import numpy.ma, a hundredth of a second
    return {int(index): float(tops[bins == index].max()) for index in present}


def _value_finite(confirmed: Confirmed, name: str) -> npt.NDArray[np.bool_]:
    """Whether a row's probabilities are numbers, and its loss is finite."""
    found: npt.NDArray[np.bool_] = (
        np.isfinite(confirmed.losses[name]) & ~confirmed.facts.by[name].nan_probability
    )
    return found


def _columns(job: Job, confirmed: Confirmed) -> dict[str, npt.NDArray[Any]]:
    by = confirmed.facts.by
    return {
        "naive_loss": confirmed.losses["naive"],
        "fused_loss": confirmed.losses["fused"],
        "truth_loss": confirmed.truth,
        "naive_nan_probability": by["naive"].nan_probability,
        **{f"{name}_value_finite": _value_finite(confirmed, name) for name in by},
        **{f"{name}_gradient_finite": ~each.bad_gradient for name, each in by.items()},
        "cause": causes_of(confirmed.facts, job.judged),
    }


def screen_all(job: Job, executor: Executor, advance: Advance = lambda _: None) -> Tally:
    """Proves what it can from bounds, then runs the rows that were not proven. Raises Interrupted as ``run_all``."""
    total, seen = Tally(behaviour=empty_behaviour()), 0
    doubtful: list[Numbers] = []
    units = _units(job, SCREEN_BYTES // job.tensor.itemsize)
    try:
        for unit, (part, unproven) in zip(units, executor.map(screen_unit, units), strict=True):
            advance(unit.nbytes)
            total += part
            doubtful.append(unproven)
            seen = unit.last
        numbers = np.concatenate([np.zeros(0, np.intp), *doubtful])
        step = max(1, BLOCK_VALUES // job.rows.classes)
        chosen = [numbers[start : start + step] for start in range(0, len(numbers), step)]
        if chosen:
            job.batch  # noqa: B018 - as in run_all
            with one_torch_thread():
                total = sum(executor.map(functools.partial(run_rows, job), chosen), start=total)
        return total
    except KeyboardInterrupt:
        raise _interrupted(job, seen, total, sum(map(len, doubtful))) from None


def can_screen(job: Job) -> bool:
    """Whether the bounds speak of this loss: plain, on labels or none, over some rows, in a cast they know."""
    labels = job.targets is None or job.targets.labels is not None
    whole = job.options.reduction == "sum" or 0 < job.kept < (6e4 if job.half else math.inf)
    cast_twice = not FORMATS[job.dtype].has_arithmetic and job.dtype != job.tensor.dtype
    return job.plain and labels and whole and job.last_axis and not cast_twice


@ignoring("over")
def screen_unit(unit: Unit) -> tuple[Tally, Numbers]:
    """(tally over the rows that were proven, numbers of the others)."""
    job, first = unit.job, unit.first
    how = Screen(
        job.tensor.dtype,
        job.dtype,
        job.rows.classes,
        -math.log(job.kept) if job.options.reduction == "mean" and job.kept else 0.0,
        job.targets is not None,
    )
    block = job.block(unit.first, unit.last)
    rows = slice(first, first + len(block))
    targets = job.targets
    if targets is None or targets.labels is None or targets.ignored is None or targets.bad is None:
        found = screen(block, None, None, None, how)
    else:
        found = screen(block, targets.labels[rows], targets.ignored[rows], targets.bad[rows], how)
    proven = np.flatnonzero(found.proven)
    numbers = np.arange(first, first + len(block))
    job.mark_whole_tensor(found.facts, numbers)
    top, bottom = found.extremes.max[proven], found.extremes.min[proven]
    tally = tally_facts(select(found.facts, proven), numbers[proven], job.rows.count, job.judged)
    tally = replace(
        tally,
        health=health.Counts(
            neginf=found.extremes.masked
            if len(proven) == len(block)
            else _masked(block[proven], job.tensor.dtype),
            min=float(bottom.min(initial=np.inf)),
            max=float(top.max(initial=-np.inf)),
        ),
        loss_low=Exact.of(float(found.loss_low[proven].clip(0.0).sum())),
        loss_high=Exact.of(float(found.loss_high[proven].sum())),
        strip_max=_strip_max(numbers[proven], top, job.rows.count),
    )
    return tally, numbers[~found.proven]


def _masked(block: Array, dtype: str) -> int:
    return extremes(block, dtype).masked if len(block) else 0
