"""The user's function as an operation like the others, made when its code is known."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container
from nanhunt.load.reference import contents, tensor_at
from nanhunt.load.roles import Role, complete_sets, missing, place
from nanhunt.load.tensor import FLOATING, INTEGER, Tensor
from nanhunt.load.wording import did_you_mean, printable
from nanhunt.operations.assignment import parted
from nanhunt.operations.function.code import Code, aside, code_of, uncompiled
from nanhunt.operations.function.options import FunctionOptions
from nanhunt.operations.function.rules import RULES, rules_with_ways_out
from nanhunt.operations.function.run import PROBED, Way, doubled, values, way_of, wide_values
from nanhunt.operations.operation import Block, Described, Form, Operation, Plan, Sliced, Tensors
from nanhunt.operations.run import Outcome, Run
from nanhunt.results.finding import Finding
from nanhunt.results.tensor import TensorReport

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Bools
    from nanhunt.operations.problem import Problem

DIFFERENCE = 1e-6
"""Relative: two ways of writing one function agree to this in float64, with room for cancelled digits."""
SETTING = "a number, no tensor"
"""The note of what a dump holds as Python's own number."""
MOST_TOGETHER = 1 << 24
"""Values of a batch that is also run as a whole."""


def naive(t: Tensors, way: Way) -> torch.Tensor:
    """--function, your code as it stands."""
    return values(way.code, t, way)


def stable(t: Tensors, way: Way) -> torch.Tensor:
    """--stable, the other way of writing it."""
    return values(way.stable or way.code, t, way)


@dataclass(frozen=True, kw_only=True)
class UserFunction(Described):
    """Runs code of the user's; without any it can only be told about."""

    code: Code | None = None
    other: Code | None = None
    """--stable."""

    def judge(self, container: Container, given: Mapping[str, Tensor], run: Run) -> Iterator[Outcome]:
        """Every place that has a tensor for each parameter, in every dtype asked for.

        Raises NanhuntError besides for code that raises, changes its input, or returns no single tensor.
        """
        if self.code is None:
            raise NanhuntError("--op function needs a function.", "Name it: --function FILE.py:NAME.")
        codes = run.codes(self.name)
        said = dict(parted(text) for text in run.options.role)
        for tensors in sets_of(self.code, container, said, given, run.options.stored_dtype):
            main = next(each for each in tensors.values() if each.dtype in FLOATING)
            for dtype in run.dtypes(main):
                yield judged(self.code, self.other, tensors, dtype, codes, run)
                run.advance(main.data.nbytes)


FUNCTION = UserFunction(
    name="function",
    what="A function of your own, --function FILE.py:NAME: its code is run on the tensors that its parameters name, "
    "row by row: mapped by torch.func.vmap, else called for 1,000 rows that matter, else for the batch. In Python: "
    "nanhunt.compare(tensors, function=f).",
    roles=(),
    options=FunctionOptions,
    forms={"naive": naive, "stable": stable},
    rules=RULES,
)


def user_function(
    function: Callable[..., Any] | str, stable: Callable[..., Any] | str | None = None
) -> UserFunction:
    """The operation of judging that function. Raises NanhuntError as ``code_of`` does."""
    code = code_of(function, "--function")
    other = None if stable is None else code_of(stable, "--stable")
    if other is not None and not other.required <= set(code.parameters):
        raise NanhuntError(
            f"{other.name} (--stable) takes {', '.join(sorted(other.required))}, {code.name} "
            f"{', '.join(code.parameters)}.",
            "Both are given the same tensors by name: let their parameters be called alike.",
        )
    roles = tuple(_parameter(name, code) for name in code.parameters)
    return replace(FUNCTION, roles=roles, code=code, other=other)


def sets_of(
    code: Code,
    container: Container,
    said: Mapping[str, str],
    known: Mapping[str, Tensor],
    stored_dtype: str | None,
) -> list[dict[str, Tensor]]:
    """Tensors by parameter, once for each place that has all: as --role says, by name, or one for the only parameter.

    Raises NanhuntError for a role that is no parameter, and for a parameter
    without a default that nothing fits.
    """
    for name in said:
        if name not in code.parameters:
            raise NanhuntError(
                f"{code.name} has no parameter {name} (--role).",
                f"{did_you_mean(name, code.parameters)}It takes {', '.join(code.parameters)}.",
            )
    roles = {name: _parameter(name, code) for name in code.parameters}
    given = {name: tensor_at(spec, roles[name], stored_dtype, container) for name, spec in said.items()}
    given |= known
    settings = {
        name: each for name, each in container.settings.items() if name in roles and name not in given
    }
    given |= {name: _setting(container.file, name, each) for name, each in settings.items()}
    exact = {name: each for name, each in container.tensors.items() if name in roles and name not in given}
    if not missing(roles.values(), {**given, **exact}):
        return [_checked(code, {**exact, **given}, container)]
    found = complete_sets(container, [role for name, role in roles.items() if name not in given])
    if not found:
        found = [_lone(code, container, given)]
    return [_checked(code, {**one, **given}, container) for one in found]


def _setting(file: str, name: str, value: float) -> Tensor:
    """A number that is given to the function as it is, and not as a tensor."""
    import numpy as np

    array = np.array(value)
    return Tensor(file, name, array.dtype.name, (), lambda: array, note=SETTING)


def _is_plain(tensor: Tensor) -> bool:
    """Whether the function is given a number: one of Python's own, or a whole one that was saved as a tensor."""
    return not tensor.shape and (tensor.note == SETTING or tensor.dtype not in FLOATING)


def _parameter(name: str, code: Code) -> Role:
    return Role(name, re.escape(name.lower()), FLOATING + INTEGER, required=name in code.required)


def _lone(code: Code, container: Container, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The only tensor for the only parameter that must be given. Raises NanhuntError where there are more of either."""
    open_ones = [name for name in code.parameters if name in code.required and name not in given]
    floating = [each for each in container.tensors.values() if each.dtype in FLOATING]
    if len(code.required) == len(floating) == 1:
        return {open_ones[0]: floating[0]}
    absent = [name for name in open_ones if not any(place(each).word == name for each in container.tensors)]
    where = printable(container.file)
    said = f"no tensor of {where} is called so" if absent else f"not in one place of {where} by that name"
    named = (absent or open_ones)[0]
    raise NanhuntError(
        f"{code.name} needs {', '.join(absent or open_ones)}: {said}.",
        f"{did_you_mean(named, (*container.tensors, *container.settings))}Say which: --role {named}=NAME (a number "
        f"may stand beside the tensors: {named!r}: 2.0). {contents(container)}",
    )


def _checked(code: Code, tensors: Mapping[str, Tensor], container: Container) -> dict[str, Tensor]:
    if not any(each.dtype in FLOATING and each.shape for each in tensors.values()):
        raise NanhuntError(
            f"{code.name} is given no floating-point tensor.",
            f"Its parameters {', '.join(code.parameters)} take tensors by name. {contents(container)}",
        )
    return {name: tensors[name] for name in code.parameters if name in tensors}


def judged(
    code: Code, other: Code | None, tensors: Mapping[str, Tensor], dtype: str, codes: frozenset[str], run: Run
) -> TensorReport:
    """The report on the function run on these tensors in that dtype."""
    import torch

    from nanhunt.operations.bounds import ranges
    from nanhunt.operations.caller import defaults_of_libraries
    from nanhunt.operations.findings import report
    from nanhunt.operations.function.telling import telling
    from nanhunt.operations.judge import tally
    from nanhunt.operations.problem import problem_of
    from nanhunt.operations.tally import Tally

    with defaults_of_libraries(), aside(), uncompiled(), torch.random.fork_rng(devices=[]):
        arrays = {name: each for name, each in tensors.items() if not _is_plain(each)}
        plain = {name: each.data.item() for name, each in tensors.items() if name not in arrays}
        way = _way(code, other, arrays, plain)
        operation = operation_of(way, arrays)
        whole = problem_of(operation, arrays, dtype, way, codes, run.options.max_rows)
        problem = whole if way.mapped else telling(whole)
        found, table = Tally(), run.table(whole.main, dtype)
        for first, last in ranges(problem):
            part, columns = tally(problem, first, last, columns=table is not None)
            found += part
            if table is not None:
                columns = columns if problem.numbers is None else _numbered(problem, first, columns)
                table.fill(first, problem.plan.unit_count, columns)
        made = report(problem, found, compares=run.compares)
        together = _together(whole, made) if "NH916" in codes else ()
    notes = (_ran(way) + _chosen(problem, whole), *made.notes)
    return replace(
        made,
        shape=whole.main.shape,
        findings=tuple(sorted((*made.findings, *together), key=lambda f: f.code)),
        notes=notes,
    )


def _way(code: Code, other: Code | None, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Way:
    """How the function is run, found out on the first rows.

    As many classes as rows, and class weights have the length of an axis of rows: if rows cannot be run apart with all
    of that length, one of them at a time is taken for something else.
    """
    main = next(name for name, each in tensors.items() if each.dtype in FLOATING and each.shape)
    rows = [name for name, each in tensors.items() if each.shape[:1] == tensors[main].shape[:1]]
    whole, refused = None, None
    for other_than in (None, *(name for name in rows if name != main)):
        by_row = frozenset(rows) - {other_than}
        try:
            way = way_of(code, other, _first_rows(tensors, by_row), by_row, plain)
        except NanhuntError as error:
            refused = refused or error
            continue
        if way.rows:
            return way
        whole = whole or way
    if whole is None and refused is not None:
        raise refused
    assert whole is not None  # the first of them was tried
    return whole


def _first_rows(tensors: Mapping[str, Tensor], rows: frozenset[str]) -> dict[str, torch.Tensor]:
    import numpy as np

    from nanhunt.dtypes.convert import to_torch

    return {
        name: to_torch(np.ascontiguousarray(each.data[:PROBED] if name in rows else each.data), each.dtype)
        for name, each in tensors.items()
    }


def _ran(way: Way) -> str:
    other = f"; stable is {way.stable.name}" if way.stable else ""
    other += "".join(f"; {name} = {value!r}" for name, value in way.plain.items())
    if not way.rows:
        return (
            f"runs your code, nothing of the dump: naive is {way.code.name}{other}; as one batch: {way.why}"
        )
    how = "each row as a batch of one" + (
        "" if way.mapped else ", one by one (torch.func.vmap cannot map it)"
    )
    return f"runs your code, nothing of the dump: naive is {way.code.name}{other}; {how}"


def _chosen(problem: Problem, whole: Problem) -> str:
    """Which rows were run, where not all were."""
    if problem.numbers is None:
        return ""
    return (
        f": {problem.plan.unit_count:,} of {whole.plan.unit_count:,} rows, those that go bad when many are run "
        "together and others spread evenly"
    )


def _numbered(problem: Problem, first: int, columns: Mapping[str, Any]) -> dict[str, Any]:
    """--save-rows of some of the user's rows says which they are."""
    import numpy as np

    count = len(columns["cause"])
    return {"row": np.array([problem.number(first + at) for at in range(count)]), **columns}


def _together(problem: Problem, made: TensorReport) -> tuple[Finding, ...]:
    """What the function makes of all rows at once, where no row alone goes bad."""
    from nanhunt.operations.judge import run_form
    from nanhunt.operations.problem import read_block

    alone = made.implementations["naive"]
    way: Way = problem.options
    size = sum(math.prod(each.shape) for each in problem.tensors.values())
    if not way.rows or alone.bad_value_rows or alone.bad_gradient_rows or size > MOST_TOGETHER:
        return ()
    block = read_block(problem, 0, problem.plan.group_count)
    ran = run_form(
        problem.operation, naive, block.cast, replace(block, options=replace(way, rows=frozenset())), 1.0
    )
    bad = not bool(ran.value.isfinite().all())
    if not bad and all(bool(each.isfinite().all()) for each in ran.gradients.values()):
        return ()
    said = f"it gives {float(ran.value.reshape(-1)[0]):.6g}" if bad else "its gradient is not finite"
    rule = next(rule for rule in RULES if rule.code == "NH916")
    message = f"all {problem.plan.unit_count:,} rows together in {problem.dtype}: {said}"
    return (Finding(rule.code, rule.name, rule.severity, 0, (), message),)


def operation_of(way: Way, tensors: Mapping[str, Tensor]) -> Operation:
    """The operation whose forms are the user's functions, run in that way on those tensors."""
    floating = [name for name, each in tensors.items() if each.dtype in FLOATING and each.shape]
    others = [name for name in tensors if name not in floating]
    trained = (way.rows or tensors.keys()) - way.constant
    roles = tuple(
        Role(
            name, "", FLOATING + INTEGER, required=False,
            gradient="unit" if name in floating and name in trained else "",
        )
        for name in (*floating, *others)
    )  # fmt: skip
    forms: dict[str, Form] = {"naive": naive, **({"stable": stable} if way.stable else {})}
    return Operation(
        name="function", what=FUNCTION.what, roles=roles, options=FunctionOptions, forms=forms,
        rules=rules_with_ways_out(), unit="row" if way.rows else "batch",
        fused_call=way.stable.name if way.stable else "the same code in float64",
        plan=plan, truth=truth, facts=facts, slots=slots, names=_names, reduces=way.reduction != "none",
    )  # fmt: skip


def slots(problem: Problem) -> Mapping[str, str]:
    """Calls of the functions on the user's tensors, each with the fix's own cast."""
    way: Way = problem.options
    called = {code: _call(word, code, problem) for word, code in _names_of(way).items()}
    return {
        "result": "loss" if problem.reduction or not way.rows else "output",
        "function": called[way.code], "stable": "" if way.stable is None else called[way.stable],
    }  # fmt: skip


def _call(word: str, code: Code, problem: Problem) -> str:
    """The call as code: right(logits{cast}, targets, temperature=2.0)."""
    way: Way = problem.options
    given = {
        name: f"{name}{{cast}}" if each.dtype in FLOATING else name for name, each in problem.tensors.items()
    }
    given |= {name: repr(value) for name, value in way.plain.items()}
    parts = []
    for name in (each for each in code.parameters if each in given):
        plainly = name in code.required and name not in code.by_name
        parts.append(given[name] if plainly else f"{name}={given[name]}")
    return f"{word}({', '.join(parts)})"


def _names(problem: Problem) -> Mapping[str, Any]:
    return {word: code.call for word, code in _names_of(problem.options).items()}


def _names_of(way: Way) -> dict[str, Code]:
    """The functions by the name that fixes call them by."""
    names = {way.code.word or "function": way.code}
    if way.stable is not None:
        word = way.stable.word or "stable"
        names["stable" if word in names else word] = way.stable
    return names


def plan(shapes: Mapping[str, tuple[int, ...]], way: Way) -> Plan:
    """A row is a group; the batch as a whole is one where its rows cannot be run apart."""
    if not way.rows:
        return Plan((), (), {})
    count = next(shapes[name][0] for name in shapes if name in way.rows)
    return Plan((count,), (), {name: Sliced(shapes[name], len(shapes[name]) - 1) for name in way.rows})


def truth(t: Tensors, way: Way) -> torch.Tensor:
    """The same code in float64; where that is not finite, --stable in float64."""
    made = wide_values(way.code, t, way)
    if way.stable is not None and not bool(made.isfinite().all()):
        made = made.where(made.isfinite(), wide_values(way.stable, t, way))
    return made.where(made.isfinite(), math.nan) if _are_losses(made) else made


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, truth_fails, differs, drawn: each bool (rows,)."""
    import torch

    way: Way = block.options
    bad = lost = torch.zeros(block.count, dtype=torch.bool)
    for name, each in block.stored.items():
        if each.is_floating_point():
            bad = bad | _any(each.isnan() | (each == math.inf), name in way.rows)
            lost = lost | _any(each.isfinite() & ~block.cast[name].isfinite(), name in way.rows)
    wide = doubled(block.cast)
    fails = (
        truth(wide, way).reshape(block.count, -1).isnan().any(-1)
    )  # losses that are infinite are NaN there
    nothing = bad & False
    found = {
        "not_finite": bad, "cast_overflow": lost, "truth_fails": fails, "differs": nothing,
        "drawn": nothing | (not way.repeats),
    }  # fmt: skip
    if way.stable is not None and way.repeats:
        one, two = (wide_values(code, wide, way).reshape(block.count, -1) for code in (way.code, way.stable))
        apart = (one - two).abs() > DIFFERENCE * one.abs().clamp_min(1.0)
        found["differs"] = (apart & one.isfinite() & two.isfinite()).any(-1)
    return {name: each.numpy() for name, each in found.items()}


def _are_losses(made: torch.Tensor) -> bool:
    """Whether a row has one number, which no mask makes infinite; outputs of several may hold -inf on purpose."""
    return made[:1].numel() == 1


def _any(holds: torch.Tensor, by_row: bool) -> torch.Tensor:
    return holds.reshape(len(holds), -1).any(-1) if by_row else holds.any()
