"""Runs any operation: every form forward and backward, unit by unit, against the truth.

What a form does to a unit is observed, never predicted. A unit of work is a problem and a range of its groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nanhunt.dtypes.formats import FORMATS
from nanhunt.load.tensor import FLOATING
from nanhunt.operations.exact import Exact
from nanhunt.operations.operation import BEHAVIOUR_FIELDS, Behaviour, Block, Facts, Form, Operation, Tensors
from nanhunt.operations.problem import Problem, read_block
from nanhunt.operations.tally import Tally, tally_rules
from nanhunt.operations.values import health

Bools = npt.NDArray[np.bool_]
Columns = Mapping[str, npt.NDArray[Any]]
"""By name, one entry a unit."""
NAME = "<U48"
"""Holds every rule's name."""
BLOCK_VALUES = 1 << 18
"""Values in a block: what the forms make of them stays in cache."""
LOSS_BOUND = 64.0
"""A value is right while its error is below LOSS_BOUND u times its scale: six bits more than one rounding, room for
the order of a sum (Blanchard, Higham & Higham, IMA J. Numer. Anal. 41(4), 2021)."""
USELESS = 0.25
"""A value is useless where its error is more than this times its scale, in every dtype: twice bfloat16's own bound."""


@dataclass(frozen=True)
class Ran:
    """One form, run forward and backward on a block."""

    value: torch.Tensor
    """(groups, *units, *own), detached."""
    gradients: Mapping[str, torch.Tensor]
    """By role, each (groups, *own of the role)."""


@dataclass(frozen=True)
class Observed:
    """What running a block showed."""

    facts: Facts
    sums: Mapping[str, float]
    """Values added up in float64, by form and "truth"."""
    errors: Mapping[str, float]
    """Largest absolute error of a value where it and its truth are finite, by form."""


def observe(problem: Problem, block: Block) -> Observed:
    """Runs the truth and every form on a block."""
    operation, upstream = problem.operation, problem.upstream
    truth = run_truth(operation, block, upstream)
    ran = {
        name: run_form(operation, form, block.cast, block, upstream) for name, form in problem.forms.items()
    }
    by = {name: behaviour(operation, block, each, truth, upstream) for name, each in ran.items()}
    values = {name: each.value.double() for name, each in (*ran.items(), ("truth", truth))}
    errors = {name: _largest_error(values[name], truth.value) for name in ran}
    return Observed(
        Facts(by, operation.facts(block)),
        {name: float(value.sum()) for name, value in values.items()},
        {name: error for name, error in errors.items() if error is not None},
    )


def _largest_error(values: torch.Tensor, true: torch.Tensor) -> float | None:
    comparable = values.isfinite() & true.isfinite()
    return float((values - true).abs()[comparable].max()) if bool(comparable.any()) else None


def tally(
    problem: Problem, first: int, last: int, *, compares: bool = True, columns: bool = False
) -> tuple[Tally, Columns]:
    """One unit of work: groups ``first`` to ``last`` - 1 of the problem, judged; sums of values only to compare.

    With a column for each fact of the units if asked.
    """
    counted = health.count(problem.part(problem.main_role, first, last), problem.main.dtype)
    if not compares and not columns and is_proven(problem, first, last):
        nothing = np.zeros(len(BEHAVIOUR_FIELDS), np.int64)
        return Tally(behaviour=dict.fromkeys(problem.forms, nothing), health=counted), {}
    block = read_block(problem, first, last)
    observed = observe(problem, block)
    facts = observed.facts
    numbers = np.arange(block.first, block.first + block.count)
    holds = [(rule.code, rule.holds(facts)) for rule in problem.judged if rule.holds is not None]
    behaviour = {
        name: np.array([np.count_nonzero(getattr(item, each)) for each in BEHAVIOUR_FIELDS])
        for name, item in facts.by.items()
    }
    added = replace(
        tally_rules(holds, numbers, problem.plan.unit_count),
        behaviour=behaviour, errors=dict(observed.errors),
        sums={name: Exact.of(value) for name, value in observed.sums.items()},
        health=counted,
    )  # fmt: skip
    return added, _columns(problem, facts, block.count) if columns else {}


def _columns(problem: Problem, facts: Facts, count: int) -> Columns:
    """What --save-rows has of each unit: whether each form's value and gradient are finite, and the first rule."""
    found: dict[str, npt.NDArray[Any]] = {}
    for name, item in facts.by.items():
        found[f"{name}_value_finite"] = ~item.bad_value
        found[f"{name}_gradient_finite"] = ~item.bad_gradient
    cause = np.full(count, "", NAME)
    for rule in reversed(problem.judged):
        if rule.holds is not None:
            cause[rule.holds(facts)] = rule.name
    return {**found, "cause": cause}


def is_proven(problem: Problem, first: int, last: int) -> bool:
    """Whether the operation's own bound shows that these groups are healthy, without any form being run."""
    stored = {each.dtype for each in problem.tensors.values() if each.dtype in FLOATING}
    screen = problem.operation.screen
    wide = (
        FORMATS[problem.dtype].in_numpy and not problem.narrow
    )  # float32 and float64: a bound is NumPy's arithmetic
    if screen is None or not wide or stored != {problem.dtype}:
        return False
    return screen({name: problem.part(name, first, last) for name in problem.tensors}, problem.options)


def ranges(problem: Problem) -> Iterator[tuple[int, int]]:
    """Groups in blocks of about BLOCK_VALUES values; what a form makes of them stays in cache."""
    size = sum(math.prod(tensor.shape) for tensor in problem.tensors.values())
    groups = problem.plan.group_count
    step = max(1, BLOCK_VALUES * groups // max(1, size))
    for first in range(0, groups, step):
        yield first, min(first + step, groups)


def run_form(operation: Operation, form: Form, tensors: Tensors, block: Block, upstream: float) -> Ran:
    """Runs one form. The gradient is that of the sum of all values times ``upstream``, in the dtype of the values."""
    names = [role.name for role in operation.roles if role.gradient and role.name in tensors]
    leaves = {name: tensors[name].detach().requires_grad_() for name in names}
    value = form({**tensors, **leaves}, block.options)
    weight = torch.tensor(upstream, dtype=torch.float64).to(value.dtype)
    found = torch.autograd.grad((value * weight).sum(), list(leaves.values()), allow_unused=True)
    known = {name: each for name, each in zip(names, found, strict=True) if each is not None}
    return Ran(value.detach(), known)


def run_truth(operation: Operation, block: Block, upstream: float) -> Ran:
    """The truth of what the operation is given in the dtype, computed in float64."""
    return run_form(operation, operation.truth, doubled(block.cast), block, upstream)


def doubled(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Float tensors in float64, in which the truth is computed."""
    return {name: each.double() if each.is_floating_point() else each for name, each in tensors.items()}


def behaviour(operation: Operation, block: Block, ran: Ran, truth: Ran, upstream: float) -> Behaviour:
    """What a form did with each unit of the block; ``upstream`` is what the reduction handed back to each value."""
    value, true = ran.value, truth.value
    finite, legal = value.isfinite(), true.isinf() & (value == true)
    bad_value = ~_all(finite | legal, block)
    bad_gradient = _bad_gradient(operation, ran, bad_value, block)
    form = FORMATS[str(value.dtype).removeprefix("torch.")]
    scale = true.abs().clamp_min(1.0)
    if operation.scale is not None:
        scale = operation.scale(doubled(block.cast), true)
    error = torch.where(finite & true.isfinite(), (value.double() - true).abs(), 0.0)
    bound = LOSS_BOUND * form.unit_roundoff
    wrong, useless = error > bound * scale, error > USELESS * scale
    return Behaviour(
        bad_value=bad_value,
        bad_gradient=bad_gradient,
        wrong=~_all(~wrong, block),
        useless=~_all(~useless, block),
        silent=_all_below(operation, ran, 0.0, block)
        & ~_all_below(operation, truth, form.unit_roundoff * upstream, block)
        & ~bad_gradient,
    )


def _all(holds: torch.Tensor, block: Block) -> Bools:
    """Whether it holds everywhere in a unit's part, bool (units,)."""
    found: Bools = holds.reshape(block.count, -1).all(-1).numpy()
    return found


def _gradients(operation: Operation, ran: Ran, kind: str) -> Iterator[torch.Tensor]:
    """Those that belong to single units ("unit"), or to all units of a group ("group")."""
    yield from (each for name, each in ran.gradients.items() if operation.role(name).gradient == kind)


def _all_below(operation: Operation, ran: Ran, limit: float, block: Block) -> Bools:
    """Whether no entry of a unit's own gradient is larger than that, bool (units,)."""
    small = np.ones(block.count, bool)
    for each in _gradients(operation, ran, "unit"):
        small &= _all(each.abs() <= limit, block)
    return small


def _bad_gradient(operation: Operation, ran: Ran, bad_value: Bools, block: Block) -> Bools:
    """Units whose gradient is not finite.

    Where what a group shares is not finite either, its units with a bad value or gradient are to blame for that, or
    all of them where there are none: a key's NaN says nothing of which query brought it.
    """
    bad = np.zeros(block.count, bool)
    for each in _gradients(operation, ran, "unit"):
        bad |= ~_all(each.isfinite(), block)
    shared = np.zeros(block.groups, bool)
    for each in _gradients(operation, ran, "group"):
        shared |= ~each.isfinite().reshape(block.groups, -1).all(-1).numpy()
    per_group = block.count // max(1, block.groups)
    known = (bad | bad_value).reshape(block.groups, per_group)
    blamed = np.where(known.any(-1, keepdims=True), known, True) & shared[:, None]
    found: Bools = bad | blamed.reshape(-1)
    return found
