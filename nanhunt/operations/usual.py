"""What most operations have in common: facts and rules about bad input, slots named as the roles are.

Standard library only at the top, as every operation's file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.operations.fix import Fix
from nanhunt.operations.operation import Behaviour, Block, Facts, Plan, Sliced, Unit
from nanhunt.operations.rule import Rule
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Bools


def fails(behaviour: Behaviour) -> Bools:
    """Units whose value or gradient is not finite."""
    return behaviour.bad_value | behaviour.bad_gradient


def at_fault(f: Facts) -> Bools:
    """Units whose input is at fault, which has a finding of its own.

    It is not finite, not in the dtype, or (where the operation has a fact "nothing") a mask leaves none of it.
    """
    found = f.own["not_finite"] | f.own["cast_overflow"]
    return found | f.own["nothing"] if "nothing" in f.own else found


def input_facts(block: Block, roles: Collection[str], masks: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """not_finite and cast_overflow of operations whose groups are single units: each bool (units,).

    ``roles``: the float tensors that have a part in every unit. In ``masks`` among them -inf is legal: it says
    that an entry does not count.
    """
    import torch

    found = {name: torch.zeros(block.count, dtype=torch.bool) for name in ("not_finite", "cast_overflow")}
    for name in roles:
        if name not in block.stored or not block.stored[name].is_floating_point():
            continue
        bad, lost = _bad(block.stored[name], name in masks), _lost(block, name, name in masks)
        found["not_finite"] |= bad.reshape(block.count, -1).any(-1)
        found["cast_overflow"] |= lost.reshape(block.count, -1).any(-1)
    found["cast_overflow"] &= ~found["not_finite"]
    return found


def plan_of_rows(
    operation: str, wrong: str, hint: str
) -> Callable[[Mapping[str, tuple[int, ...]], Any], Plan]:
    """The plan where every row of logits (..., classes) is a unit of its own; ``wrong``: what one without classes is.

    The plan raises NanhuntError for logits without classes.
    """

    def plan(shapes: Mapping[str, tuple[int, ...]], options: Any) -> Plan:
        logits = shapes["logits"]
        if not logits or logits[-1] == 0:
            raise NanhuntError(f"--op {operation}: logits of shape {logits} have {wrong}.", hint)
        return Plan(logits[:-1], (), {"logits": Sliced(logits, 1)})

    return plan


def _bad(stored: torch.Tensor, masks: bool) -> torch.Tensor:
    return stored.isnan() | stored.isposinf() if masks else ~stored.isfinite()


def _lost(block: Block | Unit, name: str, masks: bool) -> torch.Tensor:
    """Where a number that is finite as stored is infinite as cast."""
    cast = block.cast[name]
    return block.stored[name].isfinite() & (cast.isposinf() if masks else cast.isinf())


def input_rules(
    operation: str, family: str, masks: Collection[str] = ()
) -> tuple[Rule[Facts, Unit, Any], ...]:
    """``family`` 1 and 2: a number of the input is not finite, or is not in the dtype."""
    legal = f" (-inf in the {' and '.join(masks)} is legal)" if masks else ""
    return (
        Rule(
            f"{family}1", f"{operation}-input-not-finite", Severity.ERROR,
            f"A number that goes into the {operation} is NaN or infinite{legal}.",
            "NaN stays NaN, and an infinity becomes inf - inf or 0 * inf on the way.",
            "Find what produced it (nanhunt run names the operation); no way of writing what follows repairs it.",
            operation=operation, holds=lambda f: f.own["not_finite"],
            arithmetic=lambda unit: _said_of(unit, masks), input_at_fault=True,
        ),
        Rule(
            f"{family}2", f"{operation}-cast-overflow", Severity.ERROR,
            "A number that is finite in the file is infinite in the chosen dtype.",
            "It is beyond the format's largest number, so the cast destroys it before anything is computed.",
            "Keep this tensor in float32 or bfloat16.",
            operation=operation, holds=lambda f: f.own["cast_overflow"],
            arithmetic=lambda unit: _overflow(unit, masks), input_at_fault=True,
        ),
    )  # fmt: skip


def _said_of(unit: Unit, masks: Collection[str]) -> str:
    floats = {name: each for name, each in unit.stored.items() if each.is_floating_point()}
    counts = {name: int(_bad(each, name in masks).sum()) for name, each in floats.items()}
    return ", ".join(
        f"{count:,} of {floats[name].numel():,} numbers of {name} are NaN or infinite"
        for name, count in counts.items()
        if count
    )


def _overflow(unit: Unit, masks: Collection[str]) -> str:
    for name in unit.stored:
        lost = _lost(unit, name, name in masks)
        if bool(lost.any()):
            stored, cast = float(unit.stored[name][lost][0]), float(unit.cast[name][lost][0])
            return f"{name} {stored:.6g} becomes {cast:.6g} in {unit.dtype}"
    return ""


Says = Callable[[Unit], str]


def says(form: str, what: Says) -> Says:
    """The arithmetic of a form: what the unit is, the operation inside that went bad first, and the truth."""

    def text(unit: Unit) -> str:
        bad = unit.first_bad(form) or f"{form} gives {unit.value(form):.6g}"
        return f"{what(unit)}: {bad}; the truth is {unit.value('truth'):.6g}"

    return text


def compares(form: str, what: Says) -> Says:
    """The arithmetic of a form that is finite: what the unit is, what it gives, and the truth."""
    return lambda unit: (
        f"{what(unit)}: {form} gives {unit.value(form):.6g}, the truth is {unit.value('truth'):.6g}"
    )


def row_of(role: str) -> Says:
    """A row of scores in a few words: "5 logits, 2 of them -inf, the rest from -3 to 7"."""

    def text(unit: Unit) -> str:
        row = unit.cast[role].double().reshape(-1)
        masked, rest = int(row.isneginf().sum()), row[row.isfinite()]
        parts = [f"{row.numel():,} {role}"]
        parts += [f"{masked:,} of them -inf"] if masked else []
        parts += (
            [f"{'the rest' if masked else ''} from {rest.min():.6g} to {rest.max():.6g}"]
            if rest.numel()
            else []
        )
        return ", ".join(part.strip() for part in parts)

    return text


def fused_fails(operation: str, code: str, call: str, what: Says, *fixes: Fix[Any]) -> Rule[Facts, Unit, Any]:
    """What is left where the input is sound and PyTorch's own is not finite."""
    return Rule(
        code, f"{operation}-not-finite", Severity.ERROR,
        f"Even {call} is not finite, or its gradient is not.",
        "The numbers that go in leave no finite result in the dtype.",
        "Compute it in a wider dtype, and look at where numbers of this size come from.",
        operation=operation, holds=lambda f: fails(f.fused) & ~at_fault(f), arithmetic=says("fused", what), fixes=fixes,
    )  # fmt: skip


def wrong_rules(
    operation: str, useless: str, imprecise: str, why: str, fix: str, what: Says, *fixes: Fix[Any]
) -> tuple[Rule[Facts, Unit, Any], ...]:
    """Codes for what is silently wrong when written by hand: in its first digit, a warning, or less, a note."""
    return (
        Rule(
            useless, f"{operation}-silently-wrong", Severity.WARNING,
            "The handwritten result is finite, and wrong in its first digit.", why, fix,
            operation=operation, holds=lambda f: f.naive.useless & ~fails(f.fused), arithmetic=compares("naive", what),
            fixes=fixes,
        ),
        Rule(
            imprecise, f"{operation}-imprecise", Severity.NOTE,
            "The handwritten result is finite, and off by more than its rounding.", why, fix,
            operation=operation, holds=lambda f: f.naive.wrong & ~f.naive.useless & ~f.fused.wrong & ~fails(f.fused),
            arithmetic=compares("naive", what), fixes=fixes,
        ),
    )  # fmt: skip


def vanished(operation: str, code: str, call: str, what: Says, *fixes: Fix[Any]) -> Rule[Facts, Unit, Any]:
    """A gradient that is exactly 0 even in PyTorch's own, and in truth is not."""
    return Rule(
        code, f"{operation}-vanished-gradient", Severity.NOTE,
        f"The gradient of {call} is exactly 0, the truth is not.",
        "Every entry of it is rounded to 0 in the dtype: this row no longer trains.",
        "Compute it in float32, or scale the loss up before backward (GradScaler).",
        operation=operation, holds=lambda f: f.fused.silent, arithmetic=compares("fused", what), fixes=fixes,
    )  # fmt: skip


def slots_of(*roles: str) -> Callable[[Any], Mapping[str, str]]:
    """Slots named as the roles are, each with the fix's own cast, and the reduction."""

    def slots(problem: Any) -> Mapping[str, str]:
        return {**{name: f"{name}{{cast}}" for name in roles}, "reduction": problem.reduction}

    return slots


def in_float32(what: str, code: str) -> Fix[Any]:
    """The same call on the tensors as float32, where the dtype is narrower."""
    return Fix(f"compute the {what} in float32", code, slots={"cast": ".float()"}, when=lambda p: p.narrow)


def numpy_of(found: Mapping[str, torch.Tensor]) -> dict[str, Bools]:
    """Facts as judging wants them, bool (units,)."""
    return {name: each.reshape(-1).numpy() for name, each in found.items()}
