"""Runs any operation: every form forward and backward, unit by unit, against the truth.

What a form does to a unit is observed, never predicted. A unit of work is a problem and a range of its groups.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nanhunt.dtypes.formats import FORMATS
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
LOSS_BOUND = 64.0
"""A value is right while its error is below LOSS_BOUND u times its scale: six bits more than one rounding, room for
the order of a sum (Blanchard, Higham & Higham, IMA J. Numer. Anal. 41(4), 2021)."""
VISIBLE = 1 / 32
"""A value is wrong where its error is more than this times its own size, though it is made of far larger numbers, whose
rounding that is: LOSS_BOUND's share in float16. Nobody who looks at the value can know of them."""
USELESS = 0.25
"""A value is useless where its error is more than this times its scale, in every dtype: twice bfloat16's own bound."""


class Ran:
    """One form, run forward on a block, and backward when its gradients are asked for: seldom, of a truth."""

    def __init__(self, value: torch.Tensor, backward: Callable[[], Mapping[str, torch.Tensor]]) -> None:
        """``value``: (groups, *units, *own), detached; ``backward``: its gradients by role, (groups, *own of it)."""
        self.value = value
        self._backward = backward

    @cached_property
    def gradients(self) -> Mapping[str, torch.Tensor]:
        """By role, each (groups, *own of the role)."""
        return self._backward()

    @cached_property
    def is_finite(self) -> torch.Tensor:
        """Of each number of the value."""
        return self.value.isfinite()

    @cached_property
    def has_infinity(self) -> bool:
        """Whether the value is infinite anywhere."""
        return bool(self.value.isinf().any())


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
    scale = scale_of(operation, block, truth)
    by, errors, sizes = {}, {}, {}
    sums = {"truth": float(truth.value.sum())}
    for (
        name,
        form,
    ) in problem.forms.items():  # one after the other: what a form leaves in memory is reused by the next
        ran = run_form(operation, form, block.cast, block, upstream)
        measured = measure(operation, block, ran, truth)
        by[name] = behaviour(operation, block, ran, truth, upstream, scale, measured)
        sizes[name] = measured.gradient
        sums[name] = float(ran.value.sum(dtype=torch.float64))
        if measured.comparable:
            errors[name] = float(measured.error.max())
    told = {
        name: replace(item, faint=_faint(sizes[name], sizes.get("fused", sizes[name]), truth, problem, block))
        for name, item in by.items()
    }
    return Observed(Facts(told, operation.facts(block)), sums, errors)


def _gradient_size(operation: Operation, ran: Ran, block: Block) -> npt.NDArray[Any]:
    """The size of the largest entry of each unit's own gradient, (units,); NaN where there is one."""
    sizes = [_largest(each, block.count) for each in _gradients(operation, ran, "unit")]
    return functools.reduce(np.maximum, sizes) if sizes else np.zeros(block.count)


def _faint(
    size: npt.NDArray[Any], fused: npt.NDArray[Any], truth: Ran, problem: Problem, block: Block
) -> Bools:
    """Units with less than a quarter of the true gradient; only where PyTorch's own has more is the truth asked."""
    with np.errstate(invalid="ignore"):
        suspect = (size < fused / 2) & np.isfinite(fused)
        if suspect.any():
            true = _gradient_size(problem.operation, truth, block)
            least = FORMATS[problem.dtype].unit_roundoff * problem.upstream
            suspect &= (size < USELESS * true) & (true > least)
    found: Bools = suspect
    return found


def tally(
    problem: Problem, first: int, last: int, *, counts: bool = True, columns: bool = False
) -> tuple[Tally, Columns]:
    """One unit of work: groups ``first`` to ``last`` - 1 of the problem, judged.

    With the counts of the main tensor's numbers where these are wanted, and a column for each fact of the units if
    asked.
    """
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
        health=_counted(problem, first, last) if counts else health.Counts(),
    )  # fmt: skip
    return added, _columns(problem, facts, block.count) if columns else {}


def _counted(problem: Problem, first: int, last: int) -> health.Counts:
    return health.count(problem.part(problem.main_role, first, last), problem.main.dtype)


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


def run_form(operation: Operation, form: Form, tensors: Tensors, block: Block, upstream: float) -> Ran:
    """Runs one form. The gradient is that of the sum of all values times ``upstream``, in the dtype of the values."""
    ran = _run_forward(operation, form, tensors, block, upstream)
    _ = ran.gradients
    return ran


def _run_forward(operation: Operation, form: Form, tensors: Tensors, block: Block, upstream: float) -> Ran:
    names = [role.name for role in operation.roles if role.gradient and role.name in tensors]
    leaves = {name: tensors[name].detach().requires_grad_() for name in names}
    value = form({**tensors, **leaves}, block.options)

    def backward() -> Mapping[str, torch.Tensor]:
        weight = torch.tensor(upstream, dtype=torch.float64).to(value.dtype)
        found = torch.autograd.grad((value * weight).sum(), list(leaves.values()), allow_unused=True)
        return {name: each for name, each in zip(names, found, strict=True) if each is not None}

    return Ran(value.detach(), backward)


def run_truth(operation: Operation, block: Block, upstream: float) -> Ran:
    """The truth of what the operation is given in the dtype, computed in float64."""
    return _run_forward(operation, operation.truth, doubled(block.cast), block, upstream)


def doubled(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Float tensors in float64, in which the truth is computed."""
    return {name: each.double() if each.is_floating_point() else each for name, each in tensors.items()}


@dataclass(frozen=True)
class Scale:
    """What errors are measured by, each of the values' shape."""

    rounding: torch.Tensor
    """The size of what is rounded on the way to a value."""
    size: torch.Tensor | None
    """The size of a value itself, where the operation tells the two apart."""


def scale_of(operation: Operation, block: Block, truth: Ran) -> Scale:
    """What errors of the values are measured by."""
    if operation.scale is None:
        return Scale(truth.value.abs().clamp_min(1.0), None)
    given = (doubled(block.cast), truth.value, block.options)
    return Scale(operation.scale(*given), operation.size(*given) if operation.size else None)


@dataclass(frozen=True)
class Measured:
    """How far values are from their truth, and how large their gradients are."""

    error: torch.Tensor
    """Absolute, float64, of the values' shape; 0 where a value or its truth is not finite."""
    comparable: bool
    """Whether both are finite anywhere."""
    gradient: npt.NDArray[Any]
    """The size of the largest entry of each unit's own gradient, (units,)."""


def measure(operation: Operation, block: Block, ran: Ran, truth: Ran) -> Measured:
    """The errors and gradients of what a form gave."""
    error = ran.value.double() - truth.value  # not of mixed dtypes: that is slow
    error.abs_()
    gradient = _gradient_size(operation, ran, block)
    if not error.numel() or bool(error.max().isfinite()):
        return Measured(error, error.numel() > 0, gradient)
    both = ran.is_finite & truth.is_finite
    return Measured(torch.where(both, error, 0.0), bool(both.any()), gradient)


def behaviour(
    operation: Operation,
    block: Block,
    ran: Ran,
    truth: Ran,
    upstream: float,
    scale: Scale,
    measured: Measured,
) -> Behaviour:
    """What a form did with each unit of the block; ``upstream`` is what the reduction handed back to each value."""
    form = FORMATS[str(ran.value.dtype).removeprefix("torch.")]
    bad_gradient, is_zero = ~np.isfinite(measured.gradient), measured.gradient == 0
    bad_value = _bad_value(ran, truth, block)
    if is_zero.any():
        is_zero &= ~(_gradient_size(operation, truth, block) <= form.unit_roundoff * upstream)
    bad_gradient = _with_shared(operation, ran, bad_gradient, bad_value, block)
    return Behaviour(
        bad_value=bad_value,
        bad_gradient=bad_gradient,
        wrong=_wrong(measured.error, LOSS_BOUND * form.unit_roundoff, scale, block),
        useless=_beyond(measured.error, USELESS, scale.rounding if scale.size is None else scale.size, block),
        silent=is_zero & ~bad_gradient,
        faint=np.zeros(block.count, bool),
    )


def _largest(values: torch.Tensor, count: int) -> npt.NDArray[Any]:
    """The size of the largest number of each unit or group, (count,); NaN where there is one.

    A pass that is eight times as fast as asking every number whether it is finite.
    """
    if not values.numel():
        return np.zeros(count)
    rows = values.reshape(count, -1).abs()
    largest = rows.amax(-1) if rows.shape[-1] > 1 else rows[:, 0]
    found: npt.NDArray[Any] = (largest if largest.dtype.itemsize > 2 else largest.float()).numpy()
    return found


def _bad_value(ran: Ran, truth: Ran, block: Block) -> Bools:
    """Units with a number that is not finite, unless its truth is the same infinity."""
    bad: Bools = ~np.isfinite(_largest(ran.value, block.count))
    if bad.any() and truth.has_infinity:
        legal = truth.value.isinf() & (ran.value == truth.value)
        bad = ~_all(ran.is_finite | legal, block)
    return bad


def _beyond(error: torch.Tensor, bound: float, scale: torch.Tensor, block: Block) -> Bools:
    """Units with an error of more than ``bound`` times its scale."""
    if not error.numel() or not bool((torch.sub(error, scale, alpha=bound)).max() > 0):
        return np.zeros(block.count, bool)
    return ~_all(error <= bound * scale, block)


def _wrong(error: torch.Tensor, bound: float, scale: Scale, block: Block) -> Bools:
    """Units with an error beyond the rounding of what they are made of, or one that shows beside their own size."""
    found = _beyond(error, bound, scale.rounding, block)
    return found if scale.size is None else found | _beyond(error, max(bound, VISIBLE), scale.size, block)


def _all(holds: torch.Tensor, block: Block) -> Bools:
    """Whether it holds everywhere in a unit's part, bool (units,)."""
    found: Bools = holds.reshape(block.count, -1).all(-1).numpy()
    return found


def _gradients(operation: Operation, ran: Ran, kind: str) -> Iterator[torch.Tensor]:
    """Those that belong to single units ("unit"), or to all units of a group ("group")."""
    yield from (each for name, each in ran.gradients.items() if operation.role(name).gradient == kind)


def _with_shared(operation: Operation, ran: Ran, bad: Bools, bad_value: Bools, block: Block) -> Bools:
    """Units whose gradient is not finite: their own ("bad"), or what they share with their group.

    Where what a group shares is not finite, its units with a bad value or gradient are to blame for that, or all of
    them where there are none: a key's NaN says nothing of which query brought it.
    """
    shared = np.zeros(block.groups, bool)
    for each in _gradients(operation, ran, "group"):
        shared |= ~np.isfinite(_largest(each, block.groups))
    if not shared.any():
        return bad
    per_group = block.count // max(1, block.groups)
    known = (bad | bad_value).reshape(block.groups, per_group)
    blamed = np.where(known.any(-1, keepdims=True), known, True) & shared[:, None]
    found: Bools = bad | blamed.reshape(-1)
    return found
