"""What an operation is: data and plain functions. ``nanhunt.operations.judge`` runs any of them.

A form is an ordinary PyTorch function of the tensors, as a user writes it; the fused one is a form like the others.
Standard library only, and so must be the top of every operation's file: what computes imports torch inside, since
``nanhunt op`` and the catalogue of rules are read by programs that never need it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from nanhunt.load.container import Container
from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING, Tensor
from nanhunt.operations.rule import Rule
from nanhunt.operations.run import Outcome, Run

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from nanhunt.load.tensor import Tensor

    Bools = npt.NDArray[np.bool_]

T = TypeVar("T")
Tensors = Mapping[str, "torch.Tensor"]
"""By role; an optional one that was not given is missing."""
Form = Callable[[Tensors, Any], "torch.Tensor"]
"""(tensors, options) -> values, one a unit: shape (groups, *units of a group, *whatever a value consists of)."""


@dataclass(frozen=True)
class Sliced:
    """How a tensor is cut into groups: seen as ``shape``, repeated to all groups, its last ``own`` axes whole."""

    shape: tuple[int, ...]
    own: int


@dataclass(frozen=True)
class Plan:
    """What the shapes of all tensors decide, before a value is read."""

    groups: tuple[int, ...]
    """Shape over which blocks are cut: what one group holds never meets another group's numbers."""
    units: tuple[int, ...]
    """Shape of the units in one group; () where a group is one unit."""
    sliced: Mapping[str, Sliced]
    """By role; a role that is not in here is given whole to every block."""

    @property
    def group_count(self) -> int:
        """How many groups there are."""
        return math.prod(self.groups)

    @property
    def units_of_group(self) -> int:
        """How many units a group has."""
        return math.prod(self.units)

    @property
    def unit_count(self) -> int:
        """How many units there are, N of a mean."""
        return self.group_count * self.units_of_group


@dataclass
class Behaviour:
    """What one form does with each unit; every field bool (units,)."""

    bad_value: Bools
    """Some number of the value is NaN or infinite, and its truth is not infinite."""
    bad_gradient: Bools
    """Some entry of the gradient that belongs to the unit is NaN or infinite."""
    wrong: Bools
    """Finite, and further from a finite truth than LOSS_BOUND or VISIBLE allows."""
    useless: Bools
    """Finite, and further from a finite truth than USELESS allows: its first digit is wrong."""
    silent: Bools
    """The whole gradient of the unit is 0, in truth it is more than a rounding of what the reduction hands back."""
    faint: Bools
    """The largest entry of its gradient is less than a quarter of what it is in truth, and PyTorch's own is not."""


BEHAVIOUR_FIELDS = tuple(item.name for item in fields(Behaviour))


def faultless(count: int) -> Behaviour:
    """Of so many units that nothing is wrong with."""
    import numpy as np

    return Behaviour(**{name: np.zeros(count, bool) for name in BEHAVIOUR_FIELDS})


class _Asked(dict[str, Behaviour]):
    """What rules are shown of one unit that nothing is wrong with, to see which forms they ask for."""

    def __getitem__(self, form: str) -> Behaviour:
        return self.setdefault(form, faultless(1))

    def get(self, form: str, default: Any = None) -> Any:
        return self[form]


@dataclass
class Facts:
    """What the rules of an operation read, over the units of one block."""

    by: dict[str, Behaviour]
    """By form."""
    own: dict[str, Bools] = field(default_factory=dict)
    """The operation's own facts by name, bool (units,)."""

    @property
    def naive(self) -> Behaviour:
        """What people write first."""
        return self.by["naive"]

    @property
    def fused(self) -> Behaviour:
        """PyTorch's own."""
        return self.by["fused"]

    def of(self, form: str) -> Behaviour:
        """What that form does; faultless where nobody writes it of such tensors (see ``Operation.unused``)."""
        found = self.by.get(form)
        return faultless(len(self.naive.bad_value)) if found is None else found


@dataclass(frozen=True)
class Block:
    """Some groups of a problem, ready to be run."""

    stored: Tensors
    """As in the file; float8 upcast to float32."""
    cast: Tensors
    """As the operation sees them in the dtype."""
    options: Any
    groups: int
    units: tuple[int, ...]
    """Of one group."""
    first: int
    """Flat number of the first unit."""

    @property
    def count(self) -> int:
        """Units in the block."""
        return self.groups * math.prod(self.units)


@dataclass(frozen=True)
class Made:
    """A tensor of an optional role that no file holds."""

    tensor: Tensor
    code: str
    """An expression that makes the same values of the user's tensors: printed above code that names the role."""


@dataclass(frozen=True)
class Example:
    """A small problem that nobody has: what fixes are rendered for where they are only explained."""

    shapes: Mapping[str, tuple[int, ...]]
    """By role."""
    problem: Any
    """What the fixes' ``when`` is asked."""
    slots: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Described(ABC):
    """What the registry holds: how an operation is told, what is looked for in it, and how its tensors are judged.

    ``Operation`` below is judged by observing its forms; whoever has a faster way or tensors that are hard to
    recognise brings its own, as softmax cross entropy and the check of weights do.
    """

    name: str
    """As --op takes it."""
    what: str
    """One sentence."""
    roles: tuple[Role, ...]
    """The first that is given is the one that findings are about."""
    options: type[Any]
    """A frozen dataclass of options, the operation's own among them."""
    forms: Mapping[str, Callable[..., Any]]
    """Ways of writing it, by name; the first line of each docstring is what people are told."""
    rules: tuple[Rule[Any, Any, Any], ...]
    """In order of causes: a unit that several rules hold for has the first as its cause."""

    looks_at_everything: bool = False
    """Whether it has a word for all numbers of a file, so that those that cannot be read are told."""
    batch: Callable[[], Mapping[str, Tensor]] | None = None
    """Tensors by role that ``nanhunt compare`` shows it on without a file."""

    @abstractmethod
    def judge(self, container: Container, given: Mapping[str, Tensor], run: Run) -> Iterator[Outcome]:
        """Judges what it finds in ``container``, one result at a time.

        ``given``: tensors by role that are said in Python, beside the container or instead of one. Raises
        NanhuntError for names that lead nowhere and for tensors that do not fit; NothingToCheck where there is
        nothing to judge.
        """

    def example(self, dtype: str) -> Example | None:
        """Tensors that are stored in float32 and judged in ``dtype``; None where there is no fix to show."""
        return None

    def role(self, name: str) -> Role:
        """The role of that name. Raises KeyError."""
        found = {role.name: role for role in self.roles}
        return found[name]


@dataclass(frozen=True, kw_only=True)
class Operation(Described):
    """An operation that ``nanhunt.operations.judge`` runs: everything that it knows of it."""

    unit: str
    """What is counted: "row", "value"."""
    fused_call: str | Callable[[Any], str]
    """How users call the fused form: "F.cross_entropy"; of the Problem, where its options make that another call."""
    plan: Callable[[Mapping[str, tuple[int, ...]], Any], Plan]
    """(shapes by role, options) -> Plan. Raises NanhuntError for shapes that do not fit."""
    forms: Mapping[str, Form]
    """Ways of writing it: "naive" is what people write first, "fused" PyTorch's own."""
    truth: Form
    """The value in float64, without cancellation; given float64 tensors."""
    facts: Callable[[Block], dict[str, Bools]]
    """The operation's own facts on each unit of a block."""
    slots: Callable[[Any], Mapping[str, str]]
    """(Problem) -> what the slots of the fixes' templates hold for the user's shapes and options."""
    scale: Callable[[Tensors, torch.Tensor, Any], torch.Tensor] | None = None
    """(float64 tensors, true values, options) -> what errors are measured by, of that shape; None: max(1, |truth|)."""
    size: Callable[[Tensors, torch.Tensor, Any], torch.Tensor] | None = None
    """(as for ``scale``) -> what a value's own size is, where ``scale`` is that of numbers it is made of: an error of
    VISIBLE times that is wrong, whatever these were rounded to. None: ``scale``."""
    screen: Callable[[Mapping[str, npt.NDArray[Any]], Any], bool] | None = None
    """(a block's tensors as stored, float32 or float64 and judged in that; options) -> whether a bound proves that no
    rule holds for any of its units, so that no form need be run. Numpy only."""
    supplied: Callable[[Mapping[str, Tensor], str, Any], Mapping[str, Made]] | None = None
    """(tensors by role, dtype, options) -> those of optional roles that are made where no file holds them: noise."""
    settled: Callable[[Mapping[str, Tensor], Any], Any] | None = None
    """(tensors by role, options) -> the options, where what the tensors are called decides one that was left open."""
    unused: Callable[[Any], Collection[str]] = lambda problem: ()
    """(Problem) -> names of the forms that nobody writes of such tensors under such options: they are not run."""
    objectives: Mapping[str, str] = field(default_factory=dict)
    """Forms that compute another objective on purpose, and how that differs: what they do is not wrong, and not what
    was asked for."""
    reduces: bool = False
    """Whether the values are losses, of which --reduction makes one."""
    count: Callable[[Any], float] | None = None
    """(Problem) -> what a mean divides by, where that is not the number of units: tokens that a mask keeps."""
    assumes: Callable[[Any], str] | None = None
    """(Problem) -> what was taken for granted of the user's tensors, a sentence for the report; "" for nothing."""
    names: Callable[[Any], Mapping[str, Any]] | None = None
    """(Problem) -> what the code of its fixes calls beside torch and F, by name: functions of the user's."""
    isolate: Callable[[Tensors, Any, int], tuple[Tensors, Any]] | None = None
    """(tensors of one group, options, unit) -> the same with that unit alone; None: a group is a unit."""

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By role, of the small example that ``nanhunt rule`` renders fixes for; empty: it shows none."""

    @cached_property
    def asked_for(self) -> frozenset[str]:
        """The forms that some rule asks for, and PyTorch's own: the others are only shown where forms are compared."""
        import numpy as np

        by, own = _Asked(), defaultdict[str, Any](lambda: np.zeros(1, bool))
        for rule in self.rules:
            if rule.holds is not None:
                rule.holds(Facts(by, own))
        return frozenset(by) | {"naive", "fused"}

    def example(self, dtype: str) -> Example | None:
        """Of ``shapes``, under default options."""
        from nanhunt.operations.problem import problem_of

        if not self.shapes:
            return None
        tensors = {name: _outline(self.role(name), shape) for name, shape in self.shapes.items()}
        problem = problem_of(self, tensors, dtype, self.options(), frozenset())
        return Example(self.shapes, problem, self.slots(problem))

    def judge(self, container: Container, given: Mapping[str, Tensor], run: Run) -> Iterator[Outcome]:
        """Every complete set of its tensors, in every dtype asked for."""
        # They bring torch, which those who only list operations do without.
        from nanhunt.operations.assignment import assignments
        from nanhunt.operations.findings import judged
        from nanhunt.operations.problem import problem_of

        codes = run.codes(self.name)
        for tensors in assignments(container, self, given, run.options):
            main = self.main(tensors)
            for cast in run.casts(main):
                seen = {
                    name: cast.of(each) if self.casts(name, each) else each for name, each in tensors.items()
                }
                options = self.settled(tensors, run.options) if self.settled else run.options
                problem = problem_of(self, seen, cast.judged, options, codes, run.options.max_rows)
                table = run.table(main, cast.name)
                found = judged(problem, run.executor, run.advance, compares=run.compares, table=table)
                yield cast.told(found, main)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process has the operation itself; it needs the name."""
        from nanhunt.operations import registry

        return registry.find, (self.name,)

    def casts(self, role: str, tensor: Tensor) -> bool:
        """Whether the tensor of that role is cast to the dtype that is judged."""
        return tensor.dtype in FLOATING and self.role(role).cast

    def main(self, tensors: Mapping[str, T]) -> T:
        """The tensor that findings are about."""
        return next(tensors[role.name] for role in self.roles if role.name in tensors)


def _outline(role: Role, shape: tuple[int, ...]) -> Tensor:
    """A tensor of which nobody asks the values."""
    dtype = next(kind for kind in ("float32", *role.kinds) if kind in role.kinds)

    def read() -> Any:
        raise LookupError(f"the example's {role.name} has no values")

    return Tensor("example", role.name, dtype, shape, read)


@dataclass(frozen=True)
class Unit:
    """One unit that a rule holds for, and its numbers."""

    operation: Operation
    name: str
    """How messages name it: "row (0, 3)"."""
    dtype: str
    """The dtype judged in."""
    stored: Tensors
    """The tensors of its group with this unit alone, first axis 1; as in the file."""
    cast: Tensors
    """As the operation sees them."""
    options: Any
    upstream: float

    def number(self, role: str, *, stored: bool = False) -> str:
        """The first number of a tensor, as cast or as stored."""
        return f"{float((self.stored if stored else self.cast)[role].reshape(-1)[0]):.6g}"

    def first_bad(self, form: str) -> str:
        """The first operation inside ``form`` whose result is not finite; "" if there is none."""
        from nanhunt.operations.trace import first_bad

        leaves = [role.name for role in self.operation.roles if role.gradient and role.name in self.cast]

        def run() -> torch.Tensor:
            fresh = {name: self.cast[name].detach().requires_grad_() for name in leaves}
            return self.operation.forms[form]({**self.cast, **fresh}, self.options)

        found = first_bad(run, self.upstream)
        return "" if found is None else f"{found.text}{' in the backward pass' if found.backward else ''}"

    def gradient(self, form: str) -> float:
        """The largest entry, by size, of the gradient of what ``form`` gives; "truth" gives that of the truth."""
        import torch

        known = {name: each.detach().clone() for name, each in self.cast.items()}
        if form == "truth":
            known = {
                name: each.double() if each.is_floating_point() else each for name, each in known.items()
            }
        leaves = [
            role.name for role in self.operation.roles if role.gradient == "unit" and role.name in known
        ]
        for name in leaves:
            known[name].requires_grad_()
        write = self.operation.truth if form == "truth" else self.operation.forms[form]
        found = torch.autograd.grad(write(known, self.options).sum(), [known[name] for name in leaves])
        entries = torch.cat([each.flatten() for each in found])
        return float(entries[entries.abs().argmax()])

    def value(self, form: str) -> float:
        """The first number of what ``form`` gives, 0 where that is -0; "truth" gives the truth."""
        if form == "truth":
            wide = {
                name: each.double() if each.is_floating_point() else each for name, each in self.cast.items()
            }
            return float(self.operation.truth(wide, self.options).reshape(-1)[0]) + 0.0
        return float(self.operation.forms[form](self.cast, self.options).reshape(-1)[0]) + 0.0
