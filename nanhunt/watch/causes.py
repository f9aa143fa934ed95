"""From an observed operation to its cause: the rule of the catalogue, or a name, and the arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nanhunt.dtypes.formats import FORMATS
from nanhunt.operations.rules import RULES

from .observer import Observation


@dataclass(frozen=True)
class Cause:
    """Why an operation made something that is not finite."""

    rule: str | None
    name: str
    reason: str
    fix: str


def by_rule(code: str, reason: str) -> Cause:
    """A cause the catalogue explains."""
    rule = RULES[code]
    return Cause(code, rule.name, reason, rule.fix)


def cause_of(item: Observation, lineage: frozenset[str]) -> Cause:
    """The cause of one observation.

    ``lineage``: names of the calls that made its inputs, to tell a probability from any other number.
    """
    op = item.op.rstrip("_")
    for names, judge in _BACKWARD if item.node else _FORWARD:
        if op in names or (item.node and any(item.node.startswith(name) for name in names)):
            found = judge(item, lineage)
            if found is not None:
                return found
    return _in_general(item)


def _largest(item: Observation) -> float:
    return max((number.max for number in item.inputs if number.max is not None), default=0.0)


def _dtype(item: Observation) -> str:
    return item.out.dtype


def _exp(item: Observation, lineage: frozenset[str]) -> Cause | None:
    if not item.out.posinf or item.parents:
        return None
    limit, top = FORMATS[_dtype(item)].exp_limit, _largest(item)
    reason = f"max {top:.6g} > {limit:.6g}, the largest x whose exp is finite in {_dtype(item)}"
    return by_rule("NH101", reason)


def _log(item: Observation, lineage: frozenset[str]) -> Cause | None:
    if not item.inputs:
        return None
    given = item.inputs[0]
    if given.min is not None and given.min < 0:
        return Cause(
            None, "log-of-negative", f"log of a negative number (min {given.min:.6g}) is NaN", _CLAMP_LOG
        )
    zeros = f"log of 0 is -inf: {_count(given.zero)} of {given.values:,} inputs {_are(given.zero)} exactly 0"
    if lineage & _PROBABILITY:
        return by_rule("NH201", f"{zeros}, a probability that underflowed in {given.dtype}")
    return Cause(None, "log-of-zero", zeros, _CLAMP_LOG)


def _division(item: Observation, lineage: frozenset[str]) -> Cause | None:
    if not item.inputs:
        return None
    below = item.inputs[-1]
    if 0 in item.scalars and len(item.inputs) == 1:
        return Cause(None, "division-by-zero", "the divisor is the number 0", _DIVIDE)
    if not below.zero:
        return None
    zeros = f"{below.zero:,} of {below.values:,} divisors {_are(below.zero)} exactly 0"
    if item.out.nan and len(item.inputs) > 1 and item.inputs[0].zero:
        if "exp" in lineage:
            return by_rule("NH103", f"0 / 0 is NaN: {zeros}, since every exp of the row underflowed")
        return Cause(None, "division-by-zero", f"0 / 0 is NaN: {zeros}", _DIVIDE)
    return Cause(None, "division-by-zero", f"division by 0: {zeros}", _DIVIDE)


def _softmax(item: Observation, lineage: frozenset[str]) -> Cause | None:
    given = item.inputs[0] if item.inputs else None
    if given is None or not item.out.nan or not given.neginf or given.nan or given.posinf:
        return None
    rows = f"{item.out.bad_rows:,} row" + ("s have" if item.out.bad_rows != 1 else " has")
    return by_rule("NH003", f"{rows} -inf at every class: 0 / 0, nothing is left to attend to")


def _picked_loss(item: Observation, lineage: frozenset[str]) -> Cause | None:
    if item.out.nan and all(number.finite for number in item.inputs):
        return by_rule("NH007", "every label is ignored, so the mean is taken over no rows: 0 / 0")
    if any(number.neginf for number in item.inputs):
        return by_rule(
            "NH006", "the label of a row is a class whose logit is masked with -inf: its loss is inf"
        )
    return None


def _sum(item: Observation, lineage: frozenset[str]) -> Cause | None:
    given = item.inputs[0] if item.inputs else None
    if given is None:
        if item.out.nan and item.op == "mean":
            return Cause(None, "mean-of-nothing", "the mean of no values is 0 / 0", _EMPTY)
        return None
    if item.out.nan and given.finite and not given.values:
        return Cause(None, "mean-of-nothing", "the mean of no values is 0 / 0", _EMPTY)
    if not given.finite:
        return None
    top = FORMATS[_dtype(item)].max
    reason = f"{given.values:,} finite values up to {given.max:.6g} add up past {top:.6g}, the largest {_dtype(item)}"
    return (
        by_rule("NH102" if "exp" in lineage else "NH010", reason) if _half(item) or "exp" in lineage else None
    )


def _cast(item: Observation, lineage: frozenset[str]) -> Cause | None:
    given = item.inputs[0] if item.inputs else None
    if given is None or given.dtype == item.out.dtype:
        return None
    largest = max(abs(given.max or 0), abs(given.min or 0))
    limit = FORMATS[_dtype(item)].max
    return by_rule("NH004", f"|{largest:.6g}| in {given.dtype} > {limit:.6g}, the largest {_dtype(item)}")


def _root(item: Observation, lineage: frozenset[str]) -> Cause | None:
    given = item.inputs[0] if item.inputs else None
    if given is not None and given.min is not None and given.min < 0:
        reason = f"the square root of a negative number (min {given.min:.6g}) is NaN"
        return Cause(None, "root-of-negative", reason, "Clamp the argument at 0 before the square root.")
    return None


def _power(item: Observation, lineage: frozenset[str]) -> Cause | None:
    given = item.inputs[0] if item.inputs else None
    if given is None:
        return None
    if given.zero and any(scalar < 0 for scalar in item.scalars):
        reason = f"0 to a negative power: {_count(given.zero)} of {given.values:,} bases {_are(given.zero)} exactly 0"
        return Cause(None, "division-by-zero", reason, _DIVIDE)
    if item.out.nan and given.min is not None and given.min < 0:
        reason = f"a fractional power of a negative number (min {given.min:.6g}) is NaN"
        return Cause(None, "power-of-negative", reason, "Clamp the base at 0, or use an integer exponent.")
    return None


def _root_backward(item: Observation, lineage: frozenset[str]) -> Cause | None:
    reason = "the derivative 1 / (2 sqrt(x)) is infinite at x = 0"
    return Cause(None, "root-at-zero", reason, _ROOT)


def _norm_backward(item: Observation, lineage: frozenset[str]) -> Cause | None:
    reason = "the derivative x / |x| is 0 / 0 where the vector is 0"
    return Cause(
        None, "norm-at-zero", reason, "Add a small constant under the root: (x * x).sum(-1).add(eps).sqrt()."
    )


def _log_backward(item: Observation, lineage: frozenset[str]) -> Cause | None:
    if lineage & _PROBABILITY:
        return by_rule("NH301", "the derivative of log is 1 / p, which overflows for a p this small")
    if item.inputs and item.inputs[-1].zero:
        reason = "the derivative 1 / x of log is infinite at x = 0, even where `where` throws the value away"
        return Cause(None, "log-at-zero", reason, _WHERE)
    return None


def _division_backward(item: Observation, lineage: frozenset[str]) -> Cause | None:
    if item.inputs and item.inputs[-1].zero:
        reason = "the derivative divides by 0, even where `where` throws the value away"
        return Cause(None, "division-by-zero", reason, _WHERE)
    if "exp" in lineage or lineage & _PROBABILITY:
        return by_rule("NH301", "the derivative of a quotient divides by a sum this small: it overflows")
    return None


def _in_general(item: Observation) -> Cause:
    limit = FORMATS[_dtype(item)].max if _dtype(item) in FORMATS else float("inf")
    if item.node:
        return Cause(None, "gradient-not-finite", f"the derivative is not finite here ({item.op})", _GRADIENT)
    if item.parents:
        return Cause(
            None, "infinity-consumed", "an intended infinity met an operation that cannot digest it", _MASK
        )
    if item.out.nan:
        return Cause(None, "undefined-operation", "the result is undefined for these inputs", _UNDEFINED)
    reason = f"the result is larger than {limit:.6g}, the largest {_dtype(item)}"
    return Cause(None, "overflow", reason, _HALF if _half(item) else _SCALE)


def _half(item: Observation) -> bool:
    return _dtype(item) in ("float16", "bfloat16")


def _count(number: int) -> str:
    return f"{number:,}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


_PROBABILITY = frozenset({"softmax", "_softmax", "exp", "sigmoid"})
_CLAMP_LOG = "Keep the argument of log away from 0, or compute the logarithm directly (log_softmax, log1p, logsigmoid)."
_DIVIDE = "Guard the divisor (clamp it away from 0) or leave such rows out before dividing."
_EMPTY = "Skip the term when nothing is selected, or divide a sum by the count clamped at 1."
_ROOT = (
    "Add a small constant inside the root, or use torch.where on the INPUT of the root (not on its result)."
)
_WHERE = "Replace the bad inputs before the operation (torch.where on its input), not its result afterwards."
_GRADIENT = "Keep the input of this operation away from the point where its derivative is not finite."
_MASK = "Mask after this operation, or mask with a large finite value instead of an infinity."
_UNDEFINED = "Check the range of the inputs shown here."
_HALF = "Run this operation in float32 (inside autocast: torch.autocast(..., enabled=False) around it)."
_SCALE = "Scale the inputs down; a learning rate too high is the usual reason they grew."

Judge = Callable[[Observation, frozenset[str]], Cause | None]
_FORWARD: tuple[tuple[frozenset[str], Judge], ...] = (
    (frozenset({"exp", "exp2", "expm1", "sinh", "cosh"}), _exp),
    (frozenset({"log", "log2", "log10", "log1p"}), _log),
    (frozenset({"div", "reciprocal", "rsqrt", "true_divide", "fmod", "remainder"}), _division),
    (
        frozenset({"_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax", "logsumexp"}),
        _softmax,
    ),
    (frozenset({"nll_loss_forward", "nll_loss2d_forward", "nll_loss_nd"}), _picked_loss),
    (frozenset({"sum", "mean", "cumsum"}), _sum),
    (frozenset({"_to_copy", "to", "copy"}), _cast),
    (frozenset({"sqrt", "rsqrt"}), _root),
    (frozenset({"pow", "float_power"}), _power),
)
_BACKWARD: tuple[tuple[frozenset[str], Judge], ...] = (
    (frozenset({"SqrtBackward"}), _root_backward),
    (frozenset({"LinalgVectorNormBackward", "NormBackward", "CdistBackward"}), _norm_backward),
    (frozenset({"LogBackward", "Log2Backward", "Log10Backward", "Log1PBackward"}), _log_backward),
    (frozenset({"DivBackward", "ReciprocalBackward"}), _division_backward),
)
