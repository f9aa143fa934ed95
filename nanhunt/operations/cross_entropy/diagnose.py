"""Logits in one dtype -> TensorReport: judge the rows, name the causes, prove the fixes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.convert import torch_dtype
from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.errors import Interrupted
from nanhunt.operations.cross_entropy.forms import IMPLEMENTATIONS
from nanhunt.operations.cross_entropy.job import Job
from nanhunt.operations.cross_entropy.tally import COUNTED
from nanhunt.operations.cross_entropy.units import can_screen, run_all, screen_all
from nanhunt.operations.exact import Exact
from nanhunt.operations.rule import Rule
from nanhunt.operations.rules import RULES
from nanhunt.operations.run import RowTable
from nanhunt.operations.tally import NOTHING, Tally, strip
from nanhunt.operations.values.check import as_health
from nanhunt.operations.values.histogram import histogram
from nanhunt.results import tensor as judged
from nanhunt.results.finding import Finding

Floats = npt.NDArray[np.float64]


def diagnose(
    job: Job,
    executor: Executor,
    *,
    every_row: bool,
    table: RowTable | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> judged.TensorReport:
    """Judges the logits of ``job``; ``every_row`` runs all of them, which also tells the losses.

    ``table`` is filled in with one entry per row (and needs ``every_row``); ``advance`` is told bytes done.
    Raises Interrupted, with what is known, on Ctrl-C.
    """
    job, tally = _tally(job, executor, every_row, table, advance)
    tensor, rows = job.tensor, job.rows
    try:
        findings = tuple(_findings(job, tally))
    except KeyboardInterrupt:
        known = f"{tally.affected:,} of {rows.count:,} rows have findings; fixes were still being tried"
        raise Interrupted(f"{tensor.label} in {job.dtype}: {known}") from None
    return judged.TensorReport(
        file=tensor.file, tensor=tensor.name, role="logits", operation="cross-entropy",
        stored_dtype=tensor.dtype, dtype=job.dtype, shape=tensor.shape, rows=rows.count, classes=rows.classes,
        targets=_targets(job), health=_health(tally, every_row),
        implementations={name: _implementation(job, tally, name, every_row) for name in IMPLEMENTATIONS},
        truth=_truth(job, tally) if every_row else None,
        findings=findings, affected_rows=tally.affected,
        class_axis=job.options.class_axis,
        fused_call="torch.softmax" if job.targets is None else "F.cross_entropy", notes=tuple(_notes(job, every_row)),
        histogram=histogram(rows, tensor.dtype),
        strip=strip(tally, rows.count, [rule.code for rule in job.judged]),
        worst_rows=_worst_rows(job, findings),
    )  # fmt: skip


def _tally(
    job: Job, executor: Executor, every_row: bool, table: RowTable | None, advance: Callable[[int], None]
) -> tuple[Job, Tally]:
    """The tally over all rows; the job that comes back knows whether the sum of the losses overflows."""
    screens = not every_row and can_screen(job)
    added = RowTable()
    tally = (
        screen_all(job, executor, advance)
        if screens
        else run_all(job, executor, table, advance, added if job.half else None)
    )
    overflows = _overflows(job, tally)
    if overflows is None:
        if not added.columns:
            run_all(job, executor, added=added)
        overflows = _add_up_to_inf(added, job)
    if overflows:
        job = replace(job, sum_overflows=True)
        tally = screen_all(job, executor) if screens else run_all(job, executor, table)
    return job, tally


def _overflows(job: Job, tally: Tally) -> bool | None:
    """Whether the row losses add up past the dtype's largest number; None where the bounds leave that open.

    The partial sums are rounded to the dtype too, which 10 and 25 % cover.
    """
    largest, eps = compute_format(job.dtype).max, job.options.label_smoothing
    # With smoothing, -log p of all classes is added up before it is multiplied by eps / classes.
    high = float(tally.loss_high) * (max(1.0, job.rows.classes / eps) if eps else 1.0)
    if job.targets is None or not job.rows.count or high < 0.9 * largest:
        return False
    return True if float(tally.loss_low) > 1.25 * largest else None


def _add_up_to_inf(added: RowTable, job: Job) -> bool:
    """Whether ``F.cross_entropy`` adds finite numbers of the rows up to inf in the dtype: run, not predicted."""
    assert job.targets is not None
    kept = job.targets.kept & np.logical_and.reduce(
        [np.isfinite(column) for column in added.columns.values()]
    )
    return any(_adds_up_to_inf(column[kept], name, job) for name, column in added.columns.items())


def _adds_up_to_inf(rows: Floats, name: str, job: Job) -> bool:
    import torch
    import torch.nn.functional as F

    values = torch.from_numpy(rows).to(torch_dtype(compute_format(job.dtype).name))
    assert job.targets is not None
    if not len(values):
        return False
    if name == "classes" and job.weights is None and job.options.reduction == "mean":
        return bool(values.mean().isinf())
    if name == "classes" or job.targets.labels is None:
        return bool(values.sum().isinf())
    zeros = torch.zeros(len(values), dtype=torch.long)
    return bool(F.nll_loss(-values[:, None], zeros, reduction="sum").isinf())


def _findings(job: Job, tally: Tally) -> list[Finding]:
    found = [_finding(job, rule, tally) for rule in job.judged if tally.counts.get(rule.code)]
    empty = job.rows.count == 0 and job.targets is not None and job.options.reduction == "mean"
    if empty and "NH007" in job.codes:
        rule = RULES["NH007"]
        found.append(
            Finding(rule.code, rule.name, rule.severity, 0, (), "the batch has no rows: 0 / 0 = NaN")
        )
    return found


def _finding(job: Job, rule: Rule[Any, Any, Any], tally: Tally) -> Finding:
    from nanhunt.operations.cross_entropy.proof import prove
    from nanhunt.operations.cross_entropy.row import numbers_of, row_name

    rows = tally.rows[rule.code]
    assert rule.arithmetic is not None
    everywhere = tally.counts[rule.code] >= job.kept
    return Finding(
        rule.code, rule.name, rule.severity_for(job.targets is not None), tally.counts[rule.code],
        rows[: job.options.max_rows],
        f"{row_name(job, rows[0])}: {rule.arithmetic(numbers_of(job, rows[0]))}", prove(job, rule, rows, everywhere),
    )  # fmt: skip


def _worst_rows(job: Job, findings: tuple[Finding, ...]) -> tuple[judged.WorstRow, ...]:
    if not findings:
        return ()
    from nanhunt.operations.cross_entropy.worst_rows import worst_rows

    return worst_rows(job, findings)


def _targets(job: Job) -> judged.Targets | None:
    if job.targets is None:
        return None
    ignored = job.targets.ignored
    return judged.Targets(job.targets.source, 0 if ignored is None else int(np.count_nonzero(ignored)))


def _health(tally: Tally, every_row: bool) -> judged.Health:
    health = as_health(tally.health)
    return health if every_row else replace(health, zero=None, subnormal=None)


def _implementation(job: Job, tally: Tally, name: str, every_row: bool) -> judged.Implementation:
    counts = dict(zip(COUNTED, (int(number) for number in tally.behaviour[name]), strict=True))
    about_loss = every_row or job.targets is not None
    return judged.Implementation(
        loss=_reduced(job, tally.sums.get(name, NOTHING)) if every_row else None,
        nan_probability_rows=counts["nan_probability"],
        zero_target_probability_rows=counts["zero_target_probability"] if about_loss else None,
        inf_loss_rows=counts["inf_loss"] if about_loss else None,
        nan_loss_rows=counts["nan_loss"] if about_loss else None,
        nonfinite_gradient_rows=counts["bad_gradient"] if about_loss else None,
        max_loss_error=tally.errors.get(name) if every_row else None,
        bad_value_rows=counts["bad_value" if about_loss else "nan_probability"],
        bad_gradient_rows=counts["bad_gradient"] if about_loss else None,
        wrong_rows=counts["wrong"] if every_row else None,
        max_error=tally.errors.get(name) if every_row else None,
    )


def _truth(job: Job, tally: Tally) -> judged.Truth:
    return judged.Truth(_reduced(job, tally.sums.get("truth", NOTHING)), tally.errors.get("cast"))


def _reduced(job: Job, total: Exact) -> float:
    """The loss under the chosen reduction, in float64; 0/0 is NaN, as in PyTorch."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.float64(float(total)) / np.float64(job.divisor))


def _notes(job: Job, every_row: bool) -> list[str]:
    notes = []
    if FORMATS[job.dtype].compute != job.dtype:
        notes.append(f"{job.dtype} has no arithmetic in PyTorch: judged as cast to it and upcast to float32")
    if job.targets is None:
        worst = (
            "; losses are those of each row's worst label, its least likely unmasked class"
            if every_row
            else ""
        )
        notes.append(f"no targets: the softmax is judged{worst}")
    elif job.targets.bad is not None and job.targets.bad.any():
        notes.append("rows whose label is out of range have no loss: counts and losses are over the others")
    return notes
