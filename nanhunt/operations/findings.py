"""A problem and its tally become one TensorReport: counts, arithmetic, fixes that were run."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nanhunt.dtypes.formats import compute_format
from nanhunt.operations.bounds import Groups, has_bound, proven, ranges
from nanhunt.operations.caller import defaults_of_libraries, one_torch_thread
from nanhunt.operations.exact import Exact
from nanhunt.operations.operation import BEHAVIOUR_FIELDS, Facts, Unit
from nanhunt.operations.problem import Problem, read_block
from nanhunt.operations.rule import Rule
from nanhunt.operations.run import RowTable
from nanhunt.operations.tally import NOTHING, Tally, strip
from nanhunt.operations.values.check import as_health
from nanhunt.results.finding import Finding
from nanhunt.results.tensor import Implementation, TensorReport, Truth

if TYPE_CHECKING:
    from nanhunt.operations.judge import Columns


def judged(
    problem: Problem,
    executor: Executor,
    advance: Callable[[int], None],
    *,
    compares: bool,
    table: RowTable | None = None,
) -> TensorReport:
    """Judges the problem block by block; ``advance`` is told bytes done, ``table`` filled in with an entry a unit."""
    if not compares and table is None:
        problem = replace(problem, only=problem.operation.asked_for)
    found, left = Tally(), list(ranges(problem))
    looks = not compares and table is None and has_bound(problem)
    if looks:
        found, left = proven(problem, executor, advance)
    if left:
        found += _run(problem, left, executor, advance, counts=not looks, table=table)
    return report(problem, found, compares=compares)


def _run(
    problem: Problem,
    blocks: list[Groups],
    executor: Executor,
    advance: Callable[[int], None],
    *,
    counts: bool,
    table: RowTable | None,
) -> Tally:
    """Runs every form on those blocks."""
    found, size = Tally(), problem.main.nbytes // max(1, problem.plan.group_count)
    work = functools.partial(_tally, problem, counts, table is not None)
    with one_torch_thread():
        for (first, last), (part, columns) in zip(blocks, executor.map(work, blocks), strict=True):
            found += part
            if table is not None:
                table.fill(first * problem.plan.units_of_group, problem.plan.unit_count, columns)
            advance((last - first) * size)
    return found


def _tally(problem: Problem, counts: bool, columns: bool, groups: Groups) -> tuple[Tally, Columns]:
    from nanhunt.operations.judge import tally  # brings torch, which a healthy file does without

    # One thread: how torch splits a sum over threads decides its last bits.
    with defaults_of_libraries(), one_torch_thread():
        return tally(problem, *groups, counts=counts, columns=columns)


def report(problem: Problem, found: Tally, *, compares: bool) -> TensorReport:
    """Everything about the problem, from the tally over all of its groups; losses only where it ``compares``."""
    tensor, plan, operation = problem.main, problem.plan, problem.operation
    findings = tuple(_finding(problem, rule, found) for rule in problem.judged if found.counts.get(rule.code))
    return TensorReport(
        file=tensor.file, tensor=tensor.name, role="operands", stored_dtype=tensor.dtype,
        dtype=problem.dtype, shape=tensor.shape, rows=plan.unit_count, classes=0, targets=None,
        health=as_health(found.health),
        implementations={name: _implementation(problem, found, name, compares) for name in problem.forms},
        truth=Truth(_reduced(problem, found.sums.get("truth", NOTHING))) if compares else None,
        findings=findings, affected_rows=found.affected,
        notes=(*_notes(problem), *(_other_objectives(problem, found) if compares else ())),
        strip=strip(found, plan.unit_count, [rule.code for rule in problem.judged]), operation=operation.name,
        roles={name: each.label for name, each in problem.tensors.items()}, unit=operation.unit,
        unit_shape=(*plan.groups, *plan.units), fused_call=_fused_call(problem),
    )  # fmt: skip


def _fused_call(problem: Problem) -> str:
    call = problem.operation.fused_call
    return call if isinstance(call, str) else call(problem)


def _notes(problem: Problem) -> tuple[str, ...]:
    assumed = problem.operation.assumes(problem) if problem.operation.assumes else ""
    computed = compute_format(problem.dtype).name
    upcast = f"{problem.dtype} has no arithmetic in PyTorch: judged as cast to it and upcast to {computed}"
    return tuple(filter(None, (assumed, upcast if computed != problem.dtype else "")))


def _other_objectives(problem: Problem, found: Tally) -> Iterator[str]:
    """What the columns of such forms are, where they differ from the truth."""
    for name, change in problem.operation.objectives.items():
        counts = _implementation(problem, found, name, True)
        if counts.wrong_rows or counts.bad_value_rows:
            yield f"{name} is another objective: {change}"


def _implementation(problem: Problem, found: Tally, name: str, compares: bool) -> Implementation:
    nothing = np.zeros(len(BEHAVIOUR_FIELDS), np.int64)
    counts = dict(zip(BEHAVIOUR_FIELDS, map(int, found.behaviour.get(name, nothing)), strict=True))
    return Implementation(
        loss=_reduced(problem, found.sums.get(name, NOTHING)) if compares else None, bad_value_rows=counts["bad_value"],
        bad_gradient_rows=counts["bad_gradient"], wrong_rows=counts["wrong"],
        max_error=found.errors.get(name) if compares else None,
    )  # fmt: skip


def _reduced(problem: Problem, total: Exact) -> float | None:
    """The reduced value in float64; None for an operation without a reduction."""
    if not problem.reduction:
        return None
    if problem.reduction == "sum":
        return float(total)
    return float(total) / problem.count if problem.count else math.nan


def _finding(problem: Problem, rule: Rule[Facts, Unit, Any], found: Tally) -> Finding:
    from nanhunt.operations.prove import prove

    numbers = found.rows[rule.code]
    unit = unit_of(problem, numbers[0])
    said = rule.arithmetic(unit) if rule.arithmetic else ""
    return Finding(
        rule.code, rule.name, rule.severity, found.counts[rule.code],
        tuple(map(problem.number, numbers[: problem.max_rows])),
        f"{unit.name}: {said}", prove(problem, rule, numbers),
    )  # fmt: skip


def unit_of(problem: Problem, number: int) -> Unit:
    """The unit with that flat number, alone."""
    per_group = math.prod(problem.plan.units)
    group, index = divmod(number, per_group)
    block = read_block(problem, group, group + 1)
    stored, cast, options = block.stored, block.cast, problem.options
    if problem.operation.isolate is not None:
        stored, _ = problem.operation.isolate(stored, options, index)
        cast, options = problem.operation.isolate(cast, options, index)
    return Unit(
        problem.operation, unit_name(problem, number), problem.dtype, stored, cast, options, problem.upstream
    )


def unit_name(problem: Problem, number: int) -> str:
    """Says "row 7", or "row (0, 7)" where units are numbered over several dimensions."""
    shape = (*problem.plan.groups, *problem.plan.units)
    if len(shape) < 2:
        return f"{problem.operation.unit} {problem.number(number)}"
    return f"{problem.operation.unit} ({', '.join(str(int(at)) for at in np.unravel_index(number, shape))})"
