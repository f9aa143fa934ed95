"""Which rows are run one by one where there are too many for that: those that matter, found by running many together.

A function that torch.func.vmap cannot map costs a call a row, forward, backward and in float64. A batch costs one:
where its value and the gradients of its rows are finite, each row is. The rest is halved until rows are alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from nanhunt.load.tensor import Tensor
from nanhunt.operations.bounds import ranges
from nanhunt.operations.judge import run_form
from nanhunt.operations.operation import Block
from nanhunt.operations.problem import Problem, read_block

if TYPE_CHECKING:
    from nanhunt.operations.function.run import Way

Rows = npt.NDArray[np.intp]
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
        block = read_block(problem, first, last)
        yield from (first + row for row in _bad_of(problem, block, np.arange(block.count)))


def _bad_of(problem: Problem, block: Block, rows: Rows) -> Iterator[int]:
    """Those of the block's ``rows`` that go bad.

    What is shared, a sum, is bad for one of them or several: rows with a bad gradient are known by it, and are left out
    before the rest is asked again; where there are none the rest is halved.
    """
    way: Way = problem.options
    taken = {name: each[rows] if name in way.rows else each for name, each in block.cast.items()}
    together = replace(block, options=replace(way, rows=frozenset()))
    ran = run_form(problem.operation, problem.operation.forms["naive"], taken, together, 1.0)
    by_row = [each for name, each in ran.gradients.items() if name in way.rows]
    by_row += [ran.value[0]] if way.reduction == "none" else []
    bad = np.zeros(len(rows), bool)
    for each in by_row:
        bad |= ~_finite(each, len(rows))
    yield from rows[bad].tolist()
    rest = rows[~bad]
    if not len(rest) or way.reduction == "none" or bool(ran.value.isfinite().all()):
        return
    if len(rest) == 1 and not bad.any():
        yield int(rest[0])
        return
    middle = 0 if bad.any() else len(rest) // 2
    for part in (rest[:middle], rest[middle:]):
        yield from _bad_of(problem, block, part) if len(part) else ()


def _finite(each: torch.Tensor, count: int) -> npt.NDArray[np.bool_]:
    finite: npt.NDArray[np.bool_] = each.isfinite().reshape(count, -1).all(-1).numpy()
    return finite


def _taken(problem: Problem, rows: Rows) -> Problem:
    tensors = {name: _of_rows(problem, name, rows) for name in problem.tensors}
    plan = problem.operation.plan({name: each.shape for name, each in tensors.items()}, problem.options)
    return replace(problem, tensors=tensors, plan=plan, numbers=tuple(rows.tolist()))


def _of_rows(problem: Problem, name: str, rows: Rows) -> Tensor:
    tensor, way = problem.tensors[name], problem.options
    if name not in way.rows:
        return tensor
    values = np.ascontiguousarray(tensor.data[rows])
    return replace(tensor, shape=values.shape, read=lambda: values, pieces=None, address=None)
