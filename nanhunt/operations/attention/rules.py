"""What goes wrong with a row of attention, from the input to the last digit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nanhunt.dtypes.formats import FORMATS
from nanhunt.operations.attention.fixes import FLOAT32, NAN_TO_NUM, OVERFLOWS, SDPA
from nanhunt.operations.attention.forms import additive, bad, inputs, lengths, scaled
from nanhunt.operations.operation import Facts, Unit
from nanhunt.operations.rule import Rule
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    from nanhunt.operations.operation import Behaviour, Bools, Tensors


def _says(form: str) -> Callable[[Unit], str]:
    def text(unit: Unit) -> str:
        return (
            unit.first_bad(form)
            or f"{form} gives {unit.value(form):.6g}, the truth is {unit.value('truth'):.6g}"
        )

    return text


def _empty_row(unit: Unit) -> str:
    return f"the mask leaves none of {lengths(unit.cast)[1]:,} keys: max = -inf, and -inf - -inf = NaN"


def _drowned_row(unit: Unit) -> str:
    name = additive(unit.cast)[-1]
    largest = float(unit.cast[name].max())
    kind = "scores" if name == "scores" else "mask entries"
    return f"none of {lengths(unit.cast)[1]:,} {kind} is above {largest:.6g}; the output is {unit.value('naive'):.6g}"


def _product_overflows(unit: Unit) -> str:
    exact = unit.cast["query"].double() @ unit.cast["key"].double().mT
    largest = float(exact.abs().max())
    limit = FORMATS[str(unit.cast["query"].dtype).removeprefix("torch.")].max
    return f"q @ k.mT reaches {largest:.6g} > {limit:.6g} in {unit.dtype}, before it is scaled"


def _mask_becomes_infinite(unit: Unit) -> str:
    for name in additive(unit.cast):
        stored = unit.stored[name]
        changed = unit.cast[name].isneginf() & stored.isfinite()
        if bool(changed.any()):
            kind = "scores" if name == "scores" else "mask entries"
            first = float(stored[changed][0])
            return f"{int(changed.sum()):,} {kind} of {first:.6g} become -inf in {unit.dtype}"
    return ""


def _not_finite(unit: Unit) -> str:
    counts = {name: int(bad(name, unit.stored[name]).sum()) for name in inputs(unit.stored)}
    return ", ".join(
        f"{count:,} values of {name} are NaN or infinite" for name, count in counts.items() if count
    )


def _overflows_in_cast(unit: Unit) -> str:
    for name in inputs(unit.cast):
        lost = bad(name, unit.cast[name]) & unit.stored[name].isfinite()
        if bool(lost.any()):
            return f"{name} {float(unit.stored[name][lost][0]):.6g} becomes infinite in {unit.dtype}"
    return ""


def _furthest(form: str) -> Callable[[Unit], str]:
    """The entry of the output that is furthest from its truth, and how coarse the scores are."""

    def text(unit: Unit) -> str:
        given = unit.operation.forms[form](unit.cast, unit.options).double().reshape(-1)
        wide = {name: each.double() if each.is_floating_point() else each for name, each in unit.cast.items()}
        true = unit.operation.truth(wide, unit.options).reshape(-1)
        at = int((given - true).abs().argmax())
        return f"{_coarseness(wide, unit)}{form} gives {given[at]:.6g}, the truth is {true[at]:.6g}"

    return text


def _coarseness(wide: Tensors, unit: Unit) -> str:
    dtype = str(next(iter(unit.cast.values())).dtype).removeprefix("torch.")
    largest = float(scaled(wide, unit.options).abs().nan_to_num(0.0, 0.0).max())
    step = 2 * FORMATS[dtype].unit_roundoff * 2.0 ** math.floor(math.log2(max(largest, 1.0)))
    return f"scores reach {largest:.6g}, where {dtype} goes in steps of {step:.3g}: "


def _fails(behaviour: Behaviour) -> Bools:
    return behaviour.bad_value | behaviour.bad_gradient


def _input(f: Facts) -> Bools:
    """Rows whose input is at fault, which has a finding of its own."""
    return f.own["not_finite"] | f.own["cast_overflow"]


def _told(f: Facts) -> Bools:
    """Rows whose input is at fault, or whose scores a mask of large numbers has rounded away."""
    return _input(f) | f.own["drowned"]


def _naive_fails_otherwise(f: Facts) -> Bools:
    """What no more telling rule explains."""
    return _fails(f.naive) & ~f.own["empty"] & ~f.own["product_overflow"] & ~_input(f)


_ROUNDED = (
    "Scores of large magnitude are rounded before their differences are taken, which decide the softmax."
)
_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
_OP = "attention"
RULES: tuple[Rule[Facts, Unit, Any], ...] = (
    Rule(
        "NH601", "attention-input-not-finite", _E,
        "A query or score, or a key or value of its head, is NaN or infinite (-inf in scores is a mask).",
        "Every score that it takes part in is NaN, and the softmax makes the whole row NaN.",
        "Find what produced it (nanhunt run names the operation); no attention can repair it.",
        operation=_OP, holds=lambda f: f.own["not_finite"], arithmetic=_not_finite, input_at_fault=True,
    ),
    Rule(
        "NH602", "attention-cast-overflow", _E,
        "A query, key, value or score that is finite in the file is infinite in the chosen dtype.",
        "It is beyond the format's largest number, so the cast destroys it before any product.",
        "Keep the projections in float32 or bfloat16.",
        operation=_OP, holds=lambda f: f.own["cast_overflow"], arithmetic=_overflows_in_cast, input_at_fault=True,
    ),
    Rule(
        "NH603", "attention-not-finite", _E,
        "Even F.scaled_dot_product_attention is not finite, or its gradient is not.",
        "The numbers of this row leave no finite result in the dtype.",
        "Compute the attention in a wider dtype, or normalise query and key.",
        operation=_OP, holds=lambda f: _fails(f.fused) & ~_input(f), arithmetic=_says("fused"), fixes=(FLOAT32,),
    ),
    Rule(
        "NH604", "fully-masked-query", _W,
        "The mask leaves no key to this query.",
        "The softmax over nothing is 0/0: softmax gives NaN, PyTorch's own attention a row of 0.",
        "Call F.scaled_dot_product_attention with the mask, or leave such queries (padding) out.",
        operation=_OP, holds=lambda f: f.own["empty"] & _fails(f.naive),
        arithmetic=_empty_row, fixes=(SDPA, NAN_TO_NUM),
    ),
    Rule(
        "NH605", "score-overflow", _W,
        "The product q @ k.mT overflows before it is scaled.",
        "inf - inf in the softmax is NaN, although the scaled score would have been moderate.",
        "Scale q first, or call F.scaled_dot_product_attention, which adds up in float32.",
        operation=_OP, holds=lambda f: f.own["product_overflow"] & _fails(f.naive) & ~_input(f),
        arithmetic=_product_overflows, fixes=OVERFLOWS,
    ),
    Rule(
        "NH606", "naive-attention-not-finite", _W,
        "softmax(q @ k.mT * scale + mask) @ v is not finite, or its gradient is not.",
        "An operation on the way from the scores to the output leaves the format.",
        "Call F.scaled_dot_product_attention.",
        operation=_OP, holds=_naive_fails_otherwise, arithmetic=_says("naive"), fixes=OVERFLOWS,
    ),
    Rule(
        "NH607", "mask-becomes-infinite", _N,
        "A finite entry of the additive mask, or of scores that have one in them, is -inf in the chosen dtype.",
        "finfo(float32).min and -1e9 are beyond float16: a row of them, harmless before, is now masked everywhere.",
        "Use a bool mask, or torch.finfo of the dtype that the scores have.",
        operation=_OP, holds=lambda f: f.own["mask_cast"] & f.own["empty"], arithmetic=_mask_becomes_infinite,
    ),
    Rule(
        "NH608", "exp-of-scores-overflow", _N,
        "The exp of a score overflows, or those of all are 0: a softmax spelled by hand would be NaN.",
        "exp(x) without the row maximum subtracted is inf or 0 beyond the format's limits: inf / inf, or 0 / 0.",
        "Use softmax or F.scaled_dot_product_attention, which subtract it.",
        operation=_OP,
        holds=lambda f: _fails(f.by["exp-by-hand"]) & ~_fails(f.naive) & ~f.own["drowned"] & ~_input(f),
        arithmetic=_says("exp-by-hand"), fixes=(SDPA,),
    ),
    Rule(
        "NH609", "mean-of-masked-values", _N,
        "With a mask of large finite numbers this query gets an average of values that it must not see.",
        "Where every score has the same large negative number added, the numbers themselves are rounded away and the "
        "softmax is uniform.",
        "Use a bool mask with F.scaled_dot_product_attention, which gives 0.",
        operation=_OP, holds=lambda f: f.own["empty"] & f.by["finite-mask"].wrong, arithmetic=_says("finite-mask"),
        fixes=(SDPA,),
    ),
    Rule(
        "NH60C", "attention-silently-wrong", _W,
        "The handwritten output is finite, and off by more than a quarter of the largest value.",
        _ROUNDED, "Call F.scaled_dot_product_attention, or compute the scores in float32.",
        operation=_OP, holds=lambda f: f.naive.useless & ~f.fused.useless & ~_fails(f.fused) & ~_told(f),
        arithmetic=_furthest("naive"), fixes=(SDPA, FLOAT32),
    ),
    Rule(
        "NH60D", "fused-attention-wrong", _W,
        "Even F.scaled_dot_product_attention is finite, and off by more than a quarter of the largest value.",
        _ROUNDED, "Normalise query and key, or compute the attention in a wider dtype.",
        operation=_OP, holds=lambda f: f.fused.useless & ~_fails(f.fused) & ~_told(f),
        arithmetic=_furthest("fused"), fixes=(FLOAT32,),
    ),
    Rule(
        "NH610", "attention-imprecise", _N,
        "The handwritten output is finite, and off by more than the rounding of its scores, or by 3 % of the largest "
        "value.",
        _ROUNDED, "Call F.scaled_dot_product_attention, or compute the scores in float32.",
        operation=_OP, holds=lambda f: f.naive.wrong & ~f.naive.useless & ~f.fused.wrong & ~_told(f),
        arithmetic=_furthest("naive"), fixes=(SDPA, FLOAT32),
    ),
    Rule(
        "NH60A", "softcap-by-exp-overflow", _N,
        "A tanh of the softcap that is spelled with exp is NaN, or its gradient is.",
        "(exp(s) - exp(-s)) / (exp(s) + exp(-s)) is inf / inf where exp(s) is beyond the format, and 1 in truth.",
        "Call torch.tanh.",
        operation=_OP, holds=lambda f: _fails(f.of("softcap-by-exp")) & ~_fails(f.naive) & ~_input(f),
        arithmetic=_says("softcap-by-exp"), fixes=(SDPA,),
    ),
    Rule(
        "NH60B", "query-without-keys", _N,
        "A large finite number masks every key of this query: it gets an average of values it must not see.",
        "A softmax knows only differences: the same -1e9 or finfo.min on all scores leaves them as they were, or "
        "rounds them all to one number.",
        "Leave such queries (padding) out of the loss; under a bool mask F.scaled_dot_product_attention gives 0.",
        operation=_OP, holds=lambda f: f.own["drowned"] & ~_fails(f.naive) & ~_input(f), arithmetic=_drowned_row,
    ),
)  # fmt: skip
