"""One operation on the user's tensors in one dtype: what every unit of work must know, and how its part is read.

NumPy and torch are imported where values are read: ``nanhunt rule`` makes problems of shapes alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.errors import NanhuntError
from nanhunt.load.roles import Role, missing
from nanhunt.load.tensor import INTEGER, Tensor
from nanhunt.operations.operation import (
    Block,
    Facts,
    Form,
    Operation,
    Plan,
    Unit,
)
from nanhunt.operations.rule import Rule

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


@dataclass(frozen=True)
class Problem:
    """One operation on its tensors in one dtype, under its options: what every unit of work is about."""

    operation: Operation
    tensors: Mapping[str, Tensor]
    """By role."""
    dtype: str
    options: Any
    codes: frozenset[str]
    """Rules to look for."""
    plan: Plan
    max_rows: int = 10
    only: frozenset[str] | None = None
    """Forms to run, where not all of them are asked for."""
    numbers: tuple[int, ...] | None = None
    """What the user calls each unit, where only some of theirs are judged."""
    made: Mapping[str, str] = field(default_factory=dict)
    """Expressions of the tensors that no file holds, by role."""

    @property
    def main(self) -> Tensor:
        """The tensor that findings are about."""
        return self.operation.main(self.tensors)

    @property
    def judged(self) -> list[Rule[Facts, Unit, Any]]:
        """The rules to look for, in order of causes."""
        return [rule for rule in self.operation.rules if rule.code in self.codes]

    @property
    def reduction(self) -> str:
        """How the values become one: mean, sum, or nothing for an operation whose values are its output."""
        return str(self.options.reduction) if self.operation.reduces else ""

    @cached_property
    def count(self) -> float:
        """N of a mean."""
        own = self.operation.count
        return float(self.plan.unit_count) if own is None else own(self)

    @property
    def upstream(self) -> float:
        """What the reduction hands back to each value: 1 / N for a mean, else 1."""
        return 1.0 / max(1.0, self.count) if self.reduction == "mean" else 1.0

    @cached_property
    def forms(self) -> Mapping[str, Form]:
        """Ways of writing it, of these tensors under these options."""
        unused, only = self.operation.unused(self), self.only
        return {
            name: form
            for name, form in self.operation.forms.items()
            if name not in unused and (only is None or name in only)
        }

    @property
    def narrow(self) -> bool:
        """Whether it is computed in less than float32."""
        return compute_format(self.dtype).unit_roundoff > FORMATS["float32"].unit_roundoff

    def number(self, unit: int) -> int:
        """What the user calls that unit."""
        return unit if self.numbers is None else self.numbers[unit]

    @property
    def main_role(self) -> str:
        """The role of that tensor."""
        return next(role.name for role in self.operation.roles if role.name in self.tensors)

    def part(self, name: str, first: int, last: int) -> npt.NDArray[Any]:
        """Groups ``first`` to ``last`` - 1 of the tensor of one role, as stored."""
        return _part(self.tensors[name], self.plan, name, first, last)


def problem_of(
    operation: Operation, tensors: Mapping[str, Tensor], dtype: str, options: Any, codes: frozenset[str],
    max_rows: int = 10,
) -> Problem:  # fmt: skip
    """The problem of judging ``operation`` on those tensors.

    Raises NanhuntError when a role is missing, has the wrong kind, a mask is none, or the shapes do not fit.
    """
    for role in missing(operation.roles, tensors):
        raise _missing(operation, role, tensors)
    for name, tensor in tensors.items():
        _check_kind(operation, operation.role(name), tensor)
    made = operation.supplied(tensors, dtype, options) if operation.supplied else {}
    tensors = {**tensors, **{name: each.tensor for name, each in made.items()}}
    plan = operation.plan({name: tensor.shape for name, tensor in tensors.items()}, options)
    code = {name: each.code for name, each in made.items()}
    return Problem(operation, tensors, dtype, options, codes, plan, max_rows, made=code)


def _missing(operation: Operation, role: Role, tensors: Mapping[str, Tensor]) -> NanhuntError:
    there = ", ".join(f"{name} ({tensor.label})" for name, tensor in tensors.items()) or "none"
    return NanhuntError(
        f"--op {operation.name} needs {role.name}, {role.what}; found: {there}.",
        f"Say which tensor it is: --role {role.name}=NAME (or FILE:NAME).",
    )


def _check_kind(operation: Operation, role: Role, tensor: Tensor) -> None:
    if tensor.dtype not in role.kinds:
        raise NanhuntError(
            f"{tensor.label} is {tensor.dtype}, and {role.name} of --op {operation.name} is {role.what}.",
            f"Name another tensor: --role {role.name}=NAME.",
        )
    if role.is_mask and tensor.dtype in INTEGER:
        _check_mask(operation, role, tensor)


def _check_mask(operation: Operation, role: Role, tensor: Tensor) -> None:
    """A mask of whole numbers is read as bool; one of -10,000 is meant to be added, and says the opposite so."""
    if not math.prod(tensor.shape) or tensor.dtype == "bool":
        return
    low, high = int(tensor.data.min()), int(tensor.data.max())
    if low < 0 or high > 1:
        raise NanhuntError(
            f"{tensor.label} is no mask: it holds values from {low} to {high}.",
            f"As {role.name} of --op {operation.name} save bool, or 0 and 1; what is added to scores is float.",
        )


def read_block(problem: Problem, first: int, last: int) -> Block:
    """Groups ``first`` to ``last`` - 1 of every tensor, as stored and as cast to the dtype."""
    import numpy as np

    from nanhunt.dtypes.convert import to_torch

    stored: dict[str, torch.Tensor] = {}
    cast: dict[str, torch.Tensor] = {}
    for name, tensor in problem.tensors.items():
        part = _part(tensor, problem.plan, name, first, last)
        values = to_torch(np.ascontiguousarray(part), tensor.dtype)
        stored[name], cast[name] = upcast(values), cast_of(problem, name, values)
    per_group = math.prod(problem.plan.units)
    return Block(stored, cast, problem.options, last - first, problem.plan.units, first * per_group)


def upcast(values: torch.Tensor) -> torch.Tensor:
    """Values as stored, in a dtype that has arithmetic."""
    return values.float() if values.dtype.itemsize == 1 and values.is_floating_point() else values


def cast_of(problem: Problem, role: str, values: torch.Tensor) -> torch.Tensor:
    """Stored values of that role as the operation is given them: rounded to the dtype, in the dtype computed in."""
    from nanhunt.dtypes.convert import torch_dtype

    if not values.is_floating_point() or not problem.operation.role(role).cast:
        return values
    compute = torch_dtype(compute_format(problem.dtype).name)
    return upcast(values).to(torch_dtype(problem.dtype)).to(compute)


def _part(tensor: Tensor, plan: Plan, role: str, first: int, last: int) -> npt.NDArray[Any]:
    """As ``groups_of``; of a tensor in pieces only those groups are put together, where each is a run of values."""
    own = _run(tensor, plan, role)
    if own is None:
        return groups_of(tensor.data, plan, role, first, last)
    size = math.prod(own)
    return tensor.flat(first * size, last * size).reshape(last - first, *own)


def picked_of(tensor: Tensor, plan: Plan, role: str, groups: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """As ``picked``; of a tensor in pieces only those groups are put together, where each is a run of values."""
    own = _run(tensor, plan, role)
    if own is None:
        return picked(tensor.data, plan, role, groups)
    size = math.prod(own)
    return tensor.runs(groups * size, size).reshape(len(groups), *own)


def _run(tensor: Tensor, plan: Plan, role: str) -> tuple[int, ...] | None:
    """The shape of what a group has of a tensor in pieces, where that is a run of its values; else None."""
    how = plan.sliced.get(role)
    if how is None or not tensor.shards or how.shape[: len(how.shape) - how.own] != plan.groups:
        return None
    return how.shape[len(how.shape) - how.own :]


def groups_of(array: npt.NDArray[Any], plan: Plan, role: str, first: int, last: int) -> npt.NDArray[Any]:
    """Groups ``first`` to ``last`` - 1 of one tensor, (last - first, *own); all of it where the role is shared."""
    import numpy as np

    how = plan.sliced.get(role)
    if how is None:
        return array
    leading, own = how.shape[: len(how.shape) - how.own], how.shape[len(how.shape) - how.own :]
    if leading == plan.groups and array.flags.c_contiguous:  # a view: nothing is copied but what is read
        return array.reshape(plan.group_count, *own)[first:last]
    if not plan.groups:
        return array.reshape(how.shape)[None][first:last]
    return picked(array, plan, role, np.arange(first, last))


def picked(array: npt.NDArray[Any], plan: Plan, role: str, groups: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """The groups with those flat numbers of one tensor, (len(groups), *own); all of it where the role is shared."""
    import numpy as np

    how = plan.sliced.get(role)
    if how is None:
        return array
    repeated = np.broadcast_to(
        array.reshape(how.shape), (*plan.groups, *how.shape[len(how.shape) - how.own :])
    )
    return repeated[np.unravel_index(groups, plan.groups)]
