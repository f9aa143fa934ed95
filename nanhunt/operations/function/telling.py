"""Which rows are run one by one where there are too many for that: those that matter, found by running many together.

A function that torch.func.vmap cannot map costs a call a row, forward, backward and in float64. A batch costs one:
where its value and the gradients of its rows are finite, each row is. The rest is halved until rows are alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nanhunt.load.tensor import Tensor
from nanhunt.operations.bounds import ranges
from nanhunt.operations.judge import run_form
from nanhunt.operations.problem import Problem, read_block

if TYPE_CHECKING:
    from nanhunt.operations.function.run import Way

MOST_APART = 1000
"""Rows that are run one by one: some seconds for a function of a millisecond."""


def telling(problem: Problem) -> Problem:
    """The problem of ``MOST_APART`` of its rows, the first that go bad and others spread evenly; or it has no more.

    Raises NanhuntError where the function raises.
    """
    count = problem.plan.unit_count
    if count <= MOST_APART:
        return problem
    chosen = set[int]()
    for row in _bad_rows(problem):
        chosen.add(row)
        if len(chosen) == MOST_APART:
            break
    spread = np.linspace(0, count - 1, MOST_APART).astype(int).tolist()
    chosen |= set([row for row in spread if row not in chosen][: MOST_APART - len(chosen)])
    return _taken(problem, np.array(sorted(chosen)))


def _bad_rows(problem: Problem) -> Iterator[int]:
    for first, last in ranges(problem):
        yield from _bad_of(problem, first, last)


def _bad_of(problem: Problem, first: int, last: int) -> Iterator[int]:
    """Rows ``first`` to ``last`` - 1 that go bad, or are alone in a batch that does."""
    way: Way = problem.options
    block = read_block(problem, first, last)
    together = replace(block, options=replace(way, rows=frozenset()))
    ran = run_form(problem.operation, problem.operation.forms["naive"], block.cast, together, 1.0)
    bad = np.zeros(block.count, bool)
    by_row = {name: each for name, each in ran.gradients.items() if name in way.rows}
    if way.reduction == "none":
        by_row["value"] = ran.value[0]
    for each in by_row.values():
        bad |= ~_finite(each, block.count)
    if bad.any():
        yield from (first + np.flatnonzero(bad)).tolist()
    elif not bool(ran.value.isfinite().all()):
        middle = (first + last) // 2
        yield from (first,) if last - first == 1 else _bad_of(problem, first, middle)
        yield from () if last - first == 1 else _bad_of(problem, middle, last)


def _finite(each: torch.Tensor, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    finite: np.ndarray[Any, np.dtype[np.bool_]] = each.isfinite().reshape(count, -1).all(-1).numpy()
    return finite


def _taken(problem: Problem, rows: np.ndarray[Any, np.dtype[np.intp]]) -> Problem:
    tensors = {name: _of_rows(problem, name, rows) for name in problem.tensors}
    plan = problem.operation.plan({name: each.shape for name, each in tensors.items()}, problem.options)
    return replace(problem, tensors=tensors, plan=plan, numbers=tuple(rows.tolist()))


def _of_rows(problem: Problem, name: str, rows: np.ndarray[Any, np.dtype[np.intp]]) -> Tensor:
    tensor, way = problem.tensors[name], problem.options
    if name not in way.rows:
        return tensor
    values = np.ascontiguousarray(tensor.data[rows])
    return replace(tensor, shape=values.shape, read=lambda: values, pieces=None, address=None)
