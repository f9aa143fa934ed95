"""The fixes of a rule, rendered for the user's tensors and run as printed on the units that the rule holds for."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nanhunt.dtypes.convert import to_torch
from nanhunt.load.tensor import Tensor
from nanhunt.operations import fix as fixes
from nanhunt.operations.fix import Fix
from nanhunt.operations.judge import Bools, Ran, behaviour, measure, run_truth, scale_of
from nanhunt.operations.operation import Behaviour, Block, Facts, Unit
from nanhunt.operations.problem import Problem, cast_of, groups_of, picked_of, read_block, upcast
from nanhunt.operations.rule import Rule
from nanhunt.results.finding import RemedyResult

MOST_VALUES = 1 << 22
"""Fixes are run on no more values than this, in slices of the first axis that hold failing units."""
WRONG_VALUE = "finite but wrong"
WRONG = 0.01
"""A reduced loss further than this from the truth (relative; absolute below 1) is wrong, beyond any rounding."""


@dataclass(frozen=True)
class Sample:
    """A part of the problem, in the user's own layout, that holds failing units."""

    problem: Problem
    """Of the part alone."""
    failing: npt.NDArray[np.intp]
    """Numbers of the failing units in the part."""
    share: float
    """What the part's own mean must be multiplied by to be its share of the whole mean."""

    @cached_property
    def block(self) -> Block:
        """All of the part, read once for all fixes."""
        return read_block(self.problem, 0, self.problem.plan.group_count)

    @cached_property
    def truth(self) -> Ran:
        """Its truth."""
        return run_truth(self.problem.operation, self.block, self.problem.upstream)


def prove(
    problem: Problem, rule: Rule[Facts, Unit, Any], numbers: tuple[int, ...]
) -> tuple[RemedyResult, ...]:
    """Runs the rule's fixes on units with those numbers; those that work come first."""
    apply = [fix for fix in rule.fixes if fix.when(problem)]
    if not apply or not numbers:
        return ()
    sample = _sample(problem, np.array(numbers, np.intp), rule)
    if not len(sample.failing):
        return ()
    tried = [(fix, _try(sample, fix)) for fix in apply]
    told = [result for fix, result in tried if not (fix.tempting and result.works)]
    return tuple(sorted(told, key=lambda result: not result.works))


def _sample(problem: Problem, numbers: npt.NDArray[np.intp], rule: Rule[Facts, Unit, Any]) -> Sample:
    """Slices of the first axis that hold failing units, and none whose input is at fault: that no code mends.

    Where no unit shares a group with another one, the part is made of those units alone: one axis in front of theirs.
    """
    if _are_apart(problem):
        size = max(
            1, sum(math.prod(each.shape) for each in problem.tensors.values()) // problem.plan.group_count
        )
        numbers = numbers[: max(1, MOST_VALUES // size)]
        sample = _units(problem, numbers)
        return _units(problem, numbers[_sound(sample, rule)])
    if _is_flat(problem):
        alone = _alone(problem, numbers[:MOST_VALUES])
        sample = _part(problem, alone, np.arange(len(numbers)))
        sound = numbers[: len(sample.failing)][_sound(sample, rule)]
        return _part(problem, _alone(problem, sound), np.arange(len(sound)))
    shape = problem.main.shape
    if not shape or problem.plan.groups[:1] != shape[:1]:  # one head: there is no axis to slice
        return _part(problem, problem.tensors, numbers)
    inner = problem.plan.unit_count // shape[0]
    size = sum(math.prod(each.shape) for each in problem.tensors.values()) // shape[0]
    slices = np.unique(numbers // inner)[: max(1, MOST_VALUES // max(1, size))]
    part = {name: _taken(problem, name, slices) for name in problem.tensors}
    failing = numbers[np.isin(numbers // inner, slices)]
    sample = _part(problem, part, np.searchsorted(slices, failing // inner) * inner + failing % inner)
    return replace(sample, failing=sample.failing[_sound(sample, rule)[sample.failing]])


def _are_apart(problem: Problem) -> bool:
    """Whether every group is one unit, in tensors that are laid out as they are cut or that all units share."""
    plan = problem.plan
    shapes = {name: each.shape for name, each in problem.tensors.items()}
    cut = all(_is_shared(problem, name) or plan.sliced[name].shape == shape for name, shape in shapes.items())
    return cut and not plan.units and bool(plan.groups)


def _is_shared(problem: Problem, name: str) -> bool:
    how = problem.plan.sliced.get(name)
    return how is None or math.prod(how.shape[: len(how.shape) - how.own]) == 1 < problem.plan.group_count


def _units(problem: Problem, numbers: npt.NDArray[np.intp]) -> Sample:
    """Those units alone, each a group of its own."""
    part = {
        name: tensor
        if _is_shared(problem, name)
        else _of_values(tensor, picked_of(tensor, problem.plan, name, numbers))
        for name, tensor in problem.tensors.items()
    }
    return _part(problem, part, np.arange(len(numbers)))


def _is_flat(problem: Problem) -> bool:
    """Whether units stand in a row whose numbers never meet: tokens of a sequence."""
    plan = problem.plan
    rows = ((1,), plan.units)
    cut = plan.sliced.keys() == problem.tensors.keys() and len(plan.units) == 1
    return cut and all(how.own == 1 and how.shape[-1:] in rows for how in plan.sliced.values())


def _alone(problem: Problem, numbers: npt.NDArray[np.intp]) -> dict[str, Tensor]:
    """Each of those units as the only one of a group, in as many dimensions as the user's tensors have."""
    plan = problem.plan
    at = np.unravel_index(numbers, (*plan.groups, *plan.units))
    part = {}
    for name, tensor in problem.tensors.items():
        seen = np.broadcast_to(tensor.data.reshape(plan.sliced[name].shape), (*plan.groups, *plan.units))
        array = np.ascontiguousarray(seen[at]).reshape(len(numbers), *(1,) * (len(tensor.shape) - 1))
        part[name] = _of_values(tensor, array)
    return part


def _of_values(tensor: Tensor, array: npt.NDArray[Any]) -> Tensor:
    """The same tensor with other values."""
    return Tensor(tensor.file, tensor.name, tensor.dtype, array.shape, lambda: array)


def _part(problem: Problem, tensors: Mapping[str, Tensor], failing: npt.NDArray[np.intp]) -> Sample:
    """The problem of some of the tensors' numbers, under the reduction of the whole."""
    plan = problem.operation.plan({name: each.shape for name, each in tensors.items()}, problem.options)
    part = replace(problem, tensors=tensors, plan=plan)
    share = part.count * problem.upstream if problem.reduction == "mean" else 1.0
    return Sample(part, failing, share)


def _sound(sample: Sample, rule: Rule[Facts, Unit, Any]) -> Bools:
    """Units of the part whose input is not at fault; all of them for a rule that is about the input."""
    block, operation = sample.block, sample.problem.operation
    sound = np.ones(block.count, bool)
    if rule.input_at_fault or not block.count:
        return sound
    facts = Facts({}, operation.facts(block))  # such rules look at the input alone
    for other in operation.rules:
        if other.input_at_fault and other.holds is not None:
            sound &= ~other.holds(facts)
    return sound


def _taken(problem: Problem, name: str, slices: npt.NDArray[np.intp]) -> Tensor:
    """Those slices of the first axis, where the tensor has that axis; the whole of it where it is shared."""
    tensor, how, groups = problem.tensors[name], problem.plan.sliced.get(name), problem.plan.groups
    has_axis = how is not None and len(how.shape) - how.own == len(groups) and tensor.shape[:1] == groups[:1]
    if not has_axis:
        return tensor
    if tensor.ranges or tensor.shards:
        size = math.prod(tensor.shape[1:])
        return _of_values(tensor, tensor.runs(slices * size, size).reshape(-1, *tensor.shape[1:]))
    return _of_values(tensor, np.ascontiguousarray(tensor.data[slices]))


def _try(sample: Sample, fix: Fix[Any]) -> RemedyResult:
    problem = sample.problem
    code = fix.render(problem.operation.slots(problem))
    tensors = {name: _in_layout(problem, name, stored=fix.stored) for name in problem.tensors}
    leaves = [role.name for role in problem.operation.roles if role.gradient and role.name in tensors]
    names = problem.operation.names(problem) if problem.operation.names else {}
    ran = fixes.run(code, tensors, leaves, sample.share, names)
    bad, outcome, error = _judged(sample, ran, fix)
    count = int(np.count_nonzero(bad[sample.failing]))
    return RemedyResult(
        fix.title,
        _definitions(problem, code) + code,
        count == 0,
        len(sample.failing),
        count,
        error,
        outcome if count else "",
        fix.changes,
    )


def _definitions(problem: Problem, code: str) -> str:
    """Lines that make what ``code`` names and no file holds."""
    named = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    return "".join(f"{name} = {made}\n" for name, made in problem.made.items() if name in named)


def _in_numbers(sample: Sample, ran: fixes.Ran) -> str:
    """What another objective makes of the failing units: ": loss 2.4e+08, largest gradient 0, the truth 1.3e+43"."""
    problem = sample.problem
    if ran.result is None:
        return ""
    largest = max((float(each.abs().max()) for each in ran.gradients.values() if each.numel()), default=0.0)
    if ran.result.dim():
        return f": largest gradient {largest:.3g}"
    true = _true_loss(problem, sample.truth)
    return f": loss {float(ran.result):.3g}, largest gradient {largest:.3g}, the true loss {float(true):.3g}"


def _in_layout(problem: Problem, name: str, *, stored: bool) -> torch.Tensor:
    """A tensor of the part in the user's layout, as stored or as the operation is given it."""
    tensor = problem.tensors[name]
    values = to_torch(np.ascontiguousarray(tensor.data), tensor.dtype)
    return upcast(values) if stored else cast_of(problem, name, values)


def _judged(sample: Sample, ran: fixes.Ran, fix: Fix[Any]) -> tuple[Bools, str, float | None]:
    """(bool (units,): still bad, what is still wrong, error of a loss where it and the truth are finite)."""
    everything = np.ones(sample.block.count, bool)
    if ran.result is None:
        return everything, f"raises {ran.error}", None
    problem, truth = sample.problem, sample.truth
    found = _observed(problem, sample.block, ran, truth)
    is_loss = ran.result.dim() == 0
    wrong, error = (
        _wrong_loss(problem, truth, ran.result) if is_loss else (_wrong_output(found, ran.result), None)
    )
    if fix.redefines:  # another objective on purpose: being finite is enough
        wrong, error = "" if wrong.endswith(WRONG_VALUE) else wrong, None
        found = replace(found, wrong=np.zeros_like(found.wrong))
    bad = found.bad_gradient if is_loss else found.bad_value | found.bad_gradient | found.wrong
    return everything if is_loss and wrong else bad, _outcome(sample, ran, fix, found, wrong), error


def _outcome(sample: Sample, ran: fixes.Ran, fix: Fix[Any], found: Behaviour, wrong: str) -> str:
    """Of value and gradient: "right loss, gradient still NaN", "loss finite but wrong, gradient 0"."""
    gradient = ""
    if found.bad_gradient[sample.failing].any():
        is_nan = any(bool(each.isnan().any()) for each in ran.gradients.values())
        gradient = f", gradient still {'NaN' if is_nan else 'infinite'}"
    if wrong and not wrong.endswith(WRONG_VALUE):
        return wrong
    if wrong and fix.changes:
        return f"finite, but another objective ({fix.changes}){gradient}{_in_numbers(sample, ran)}"
    if wrong and not gradient and found.silent[sample.failing].any():
        gradient = ", gradient 0"
    kind = "loss" if ran.result is not None and ran.result.dim() == 0 else "value"
    return (wrong or f"right {kind}") + gradient


def _wrong_output(found: Behaviour, output: torch.Tensor) -> str:
    """What is wrong with values that are the output, or ""."""
    if found.bad_value.any():
        return "still NaN" if bool(output.isnan().any()) else "still infinite"
    return WRONG_VALUE if found.wrong.any() else ""


def _wrong_loss(problem: Problem, truth: Ran, loss: torch.Tensor) -> tuple[str, float | None]:
    """(what is wrong with the reduced loss or "", its error)."""
    true = _true_loss(problem, truth)
    if not bool(loss.isfinite()):
        right = bool(loss.double() == true)
        return "" if right else f"loss still {'NaN' if bool(loss.isnan()) else 'infinite'}", None
    error = float((loss.double() - true).abs())
    return f"loss {WRONG_VALUE}" if error > WRONG * max(1.0, float(true.abs())) else "", error


def _true_loss(problem: Problem, truth: Ran) -> torch.Tensor:
    return truth.value.sum() / (max(1.0, problem.count) if problem.reduction == "mean" else 1.0)


def _observed(problem: Problem, block: Block, ran: fixes.Ran, truth: Ran) -> Behaviour:
    """What the code did with each unit: its gradients, cut into groups as the tensors are, and its output if any."""
    plan, operation = problem.plan, problem.operation
    cut = {
        name: torch.from_numpy(
            np.ascontiguousarray(groups_of(each.double().numpy(), plan, name, 0, plan.group_count))
        )
        for name, each in ran.gradients.items()
    }
    value = truth.value.to(operation.main(block.cast).dtype)  # a reduced loss says nothing of single units
    if ran.result is not None and ran.result.dim():
        value = ran.result.reshape(value.shape)
    seen = Ran(value, lambda: cut)
    scale = scale_of(operation, block, truth)
    return behaviour(
        operation, block, seen, truth, problem.upstream, scale, measure(operation, block, seen, truth)
    )
