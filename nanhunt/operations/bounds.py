"""Blocks that an operation's bound proves healthy: at memory speed, without torch, in processes where these are faster.

What is left is run form by form, by ``nanhunt.operations.judge``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor

import numpy as np

from nanhunt.dtypes.formats import FORMATS
from nanhunt.load.tensor import FLOATING
from nanhunt.operations.operation import BEHAVIOUR_FIELDS
from nanhunt.operations.problem import Problem
from nanhunt.operations.tally import Tally
from nanhunt.operations.values import health

Groups = tuple[int, int]
"""The first, and one past the last."""
BLOCK_VALUES = 1 << 18
"""Values in a block: what the forms make of them stays in cache."""


def ranges(problem: Problem) -> Iterator[Groups]:
    """Groups in blocks of about BLOCK_VALUES values; what a form makes of them stays in cache."""
    size = sum(math.prod(tensor.shape) for tensor in problem.tensors.values())
    groups = problem.plan.group_count
    step = max(1, BLOCK_VALUES * groups // max(1, size))
    for first in range(0, groups, step):
        yield first, min(first + step, groups)


def has_bound(problem: Problem) -> bool:
    """Whether the operation has a bound, and it holds for the dtypes: float32 and float64, whose bound is NumPy's."""
    stored = {each.dtype for each in problem.tensors.values() if each.dtype in FLOATING}
    wide = FORMATS[problem.dtype].in_numpy and not problem.narrow
    return problem.operation.screen is not None and wide and stored == {problem.dtype}


def proven(
    problem: Problem, executor: Executor, advance: Callable[[int], None]
) -> tuple[Tally, list[Groups]]:
    """(what is known of all blocks: counts of their numbers, and health of those that are proven; the blocks left).

    ``advance`` is told bytes of blocks that are done.
    """
    found, left, size = Tally(), [], problem.main.nbytes // max(1, problem.plan.group_count)
    nothing = np.zeros(len(BEHAVIOUR_FIELDS), np.int64)
    blocks = list(ranges(problem))
    work = functools.partial(_looked_at, problem)
    for (first, last), (is_healthy, counts) in zip(blocks, executor.map(work, blocks), strict=True):
        found += Tally(behaviour=dict.fromkeys(problem.forms, nothing), health=counts)
        if is_healthy:
            advance((last - first) * size)
        else:
            left.append((first, last))
    return found, left


def _looked_at(problem: Problem, groups: Groups) -> tuple[bool, health.Counts]:
    """Whether the bound holds for these groups, and the counts of the main tensor's numbers."""
    assert problem.operation.screen is not None
    parts = {name: problem.part(name, *groups) for name in problem.tensors}
    counts = health.count(parts[problem.main_role], problem.main.dtype)
    with np.errstate(all="ignore"):  # NaN and infinities are no bound's business
        return problem.operation.screen(parts, problem.options), counts
