"""What may be said of code that is not ours: that it goes bad, where, and what float64 or the other way gives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nanhunt.operations.fix import Fix
from nanhunt.operations.function.code import Code
from nanhunt.operations.function.run import doubled, values, wide_values
from nanhunt.operations.operation import Facts, Unit
from nanhunt.operations.rule import Rule
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Behaviour, Bools, Tensors


def _numbers(unit: Unit, tensors: Tensors) -> str:
    """The tensors of the row in few words: "x = 100", "x from -3 to 100"."""
    said = []
    for name, each in tensors.items():
        if name not in unit.options.rows and unit.options.rows:
            continue
        flat = each.double().reshape(-1)
        if flat.numel():
            low, high = float(flat.min()), float(flat.max())
            said.append(f"{name} = {low:.6g}" if low == high else f"{name} from {low:.6g} to {high:.6g}")
    return ", ".join(said)


def _line(unit: Unit, code: Code) -> str:
    """The first line of the code that goes bad on this row, run on it alone."""
    from nanhunt.operations.function.lines import first_bad_line

    leaves = [role.name for role in unit.operation.roles if role.gradient and role.name in unit.cast]

    def run() -> torch.Tensor:
        fresh = {name: unit.cast[name].detach().clone().requires_grad_() for name in leaves}
        return values(code, {**unit.cast, **fresh}, replace(unit.options, mapped=False))

    found = first_bad_line(run, unit.upstream)
    return "" if found is None else str(found)


def _goes_bad(unit: Unit) -> str:
    line = _line(unit, unit.options.code) or f"{unit.options.code.name} gives {unit.value('naive'):.6g}"
    return f"{line}; {_numbers(unit, unit.cast)}; the truth is {unit.value('truth'):.6g}"


def _bad_anyway(unit: Unit) -> str:
    wide = float(wide_values(unit.options.code, doubled(unit.cast), unit.options).reshape(-1)[0])
    return f"{_line(unit, unit.options.code)}; {_numbers(unit, unit.cast)}; in float64 {wide:.6g}"


def _gives(unit: Unit) -> str:
    value, true = unit.value("naive"), unit.value("truth")
    return f"{unit.options.code.name} gives {value:.6g}, the truth is {true:.6g}; {_numbers(unit, unit.cast)}"


def _stable_fails(unit: Unit) -> str:
    return f"{_line(unit, unit.options.stable) or 'not finite'}; {_numbers(unit, unit.cast)}"


def _disagrees(unit: Unit) -> str:
    wide = doubled(unit.cast)
    both = (unit.options.code, unit.options.stable)
    one, two = (float(wide_values(code, wide, unit.options).reshape(-1)[0]) for code in both)
    return f"in float64 {both[0].name} is {one:.6g}, {both[1].name} is {two:.6g}"


def _cast(unit: Unit) -> str:
    for name, each in unit.cast.items():
        lost = unit.stored[name].isfinite() & ~each.isfinite()
        if bool(lost.any()):
            return f"{name} {float(unit.stored[name][lost][0]):.6g} becomes infinite in {unit.dtype}"
    return ""


def _fails(behaviour: Behaviour) -> Bools:
    return behaviour.bad_value | behaviour.bad_gradient


def _handed_on(f: Facts) -> Bools:
    """Rows given a number that is not finite, and bad for that, where the function was run: it may have masked it."""
    return f.own["not_finite"] & (_fails(f.naive) if "naive" in f.by else True)


def _sound(f: Facts) -> Bools:
    return ~(f.own["not_finite"] | f.own["cast_overflow"])


def _of_stable(f: Facts, held: Bools) -> Bools:
    """Nothing where there is no other way to compare with."""
    return held if "stable" in f.by else held & False


WAYS_OUT: tuple[Fix[Any], ...] = (
    Fix(
        "call the function given as --stable", "{result} = {stable}",
        when=lambda problem: problem.options.stable is not None,
    ),
    Fix(
        "give the function float32", "{result} = {function}", slots={"cast": ".float()"},
        when=lambda problem: problem.narrow,
    ),
)  # fmt: skip
"""Only code that is there can be proven: neither is in the catalogue."""
_OF_VALUES = frozenset({"NH913", "NH914", "NH915", "NH918"})


def rules_with_ways_out() -> tuple[Rule[Facts, Unit, Any], ...]:
    """The rules as they are judged."""
    return tuple(replace(rule, fixes=WAYS_OUT) if rule.code in _OF_VALUES else rule for rule in RULES)


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
RULES: tuple[Rule[Facts, Unit, Any], ...] = (
    Rule(
        "NH911", "function-input-not-finite", _E,
        "A number that the function is given is NaN or +inf, and its value or gradient is not finite either.",
        "The function hands it on; -inf alone may be a mask, and is no fault by itself.",
        "Find what produced it (nanhunt run names the operation).",
        operation="function", holds=_handed_on,
        arithmetic=lambda u: _numbers(u, u.stored), input_at_fault=True,
    ),
    Rule(
        "NH912", "function-cast-overflow", _E,
        "A number that is finite in the file is infinite in the chosen dtype.",
        "It is beyond the format's largest number, so the cast destroys it before the function runs.",
        "Keep this tensor in float32 or bfloat16.",
        operation="function", holds=lambda f: f.own["cast_overflow"], arithmetic=_cast, input_at_fault=True,
    ),
    Rule(
        "NH913", "function-not-finite-in-float64", _E,
        "The function is NaN or infinite in float64 too (and --stable, where it is given).",
        "No wider format mends it: the formula itself leaves the numbers, as 0/0 or log(0) do.",
        "Guard the input of the line that is named, before the operation and not after it.",
        operation="function", holds=lambda f: f.own["truth_fails"] & f.naive.bad_value & _sound(f),
        arithmetic=_bad_anyway,
    ),
    Rule(
        "NH914", "function-goes-bad", _W,
        "The value is NaN or infinite in the chosen dtype, the same code in float64 (or --stable) is finite.",
        "A number on the way leaves the format.",
        "Rewrite the line that is named, or compute it in a wider dtype; compare the new code with --stable.",
        operation="function", holds=lambda f: f.naive.bad_value & ~f.own["truth_fails"] & _sound(f),
        arithmetic=_goes_bad,
    ),
    Rule(
        "NH915", "function-gradient-goes-bad", _W,
        "The value is finite, its gradient is NaN or infinite.",
        "The backward pass of the line that is named leaves the format, or multiplies 0 by infinity.",
        "Replace the input of that line where its result is not used (torch.where before it, not after).",
        operation="function", holds=lambda f: f.naive.bad_gradient & ~f.naive.bad_value & _sound(f),
        arithmetic=_goes_bad,
    ),
    Rule(
        "NH916", "batch-goes-bad", _W,
        "The function of all rows together is not finite, though each row alone is.",
        "What rows are joined by overflows: a sum of many rows in half precision.",
        "Reduce in float32.",
        operation="function",
    ),
    Rule(
        "NH917", "stable-goes-bad", _W,
        "The function given as --stable is not finite here, though the truth is.",
        "It is not stable on these numbers.",
        "Guard the line that is named.",
        operation="function",
        holds=lambda f: _of_stable(f, _fails(f.by.get("stable", f.naive)) & ~f.own["truth_fails"] & _sound(f)),
        arithmetic=_stable_fails,
    ),
    Rule(
        "NH918", "function-wrong", _N,
        "The value is finite, and off by more than its rounding.",
        "Digits cancel, or are absorbed by larger numbers.",
        "Compare it with another way of writing it: --stable.",
        operation="function", holds=lambda f: f.naive.wrong & _sound(f) & ~f.own["drawn"], arithmetic=_gives,
    ),
    Rule(
        "NH919", "function-gradient-vanishes", _N,
        "The gradient of the row is exactly 0, in float64 it is not.",
        "It is below the smallest number of the dtype, or a clamp stops it: clamp has no gradient outside.",
        "Compute it in float32, or scale the loss up before backward (GradScaler).",
        operation="function", holds=lambda f: f.naive.silent & _sound(f) & ~f.own["drawn"], arithmetic=_gives,
    ),
    Rule(
        "NH920", "stable-is-another-function", _N,
        "In float64 the function and --stable differ, where both are finite.",
        "They do not compute the same thing, so neither is the truth of the other.",
        "Compare the two formulas: an epsilon, a clamp, another reduction.",
        operation="function", holds=lambda f: _of_stable(f, f.own["differs"] & _sound(f)), arithmetic=_disagrees,
    ),
)  # fmt: skip
