"""The catalogue. One rule is a code, a name, a severity, a predicate on row facts and one explanation.

``nanhunt rule``, the reports and the README table all read it from here. Standard library only.
The order is the order of causes: a row that several rules hold for has the first as its cause.

A verdict cannot be missed: whatever row makes ``F.cross_entropy`` fail holds an error (NH011 takes what no other
error explains), and whatever row makes the naive form fail a warning at least (NH201 takes the losses, NH301 the
gradients that nothing else explains).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nanhunt.errors import NanhuntError
from nanhunt.results.report import Severity

if TYPE_CHECKING:
    from nanhunt.operations.cross_entropy.facts import Bools, RowFacts

Predicate = Callable[["RowFacts"], "Bools"]


@dataclass(frozen=True)
class Rule:
    """One fault, explained once."""

    code: str
    name: str
    severity: Severity
    holds: Predicate | None
    """Which rows it holds for; None for the rules about tensors that are not logits."""
    what: str
    why: str
    fix: str
    targetless: Severity | None = None
    """Severity when no targets are given, if that differs."""


def nan_logits(row: RowFacts) -> Bools:
    return row.nan_logit


def inf_logits(row: RowFacts) -> Bools:
    return row.inf_logit


def fully_masked_row(row: RowFacts) -> Bools:
    return row.fully_masked


def cast_overflow(row: RowFacts) -> Bools:
    return row.cast_overflow


def target_out_of_range(row: RowFacts) -> Bools:
    return row.bad_label


def masked_target(row: RowFacts) -> Bools:
    return row.masked_target


def all_targets_ignored(row: RowFacts) -> Bools:
    return row.mean_of_none


def ignored_row_poisons_gradient(row: RowFacts) -> Bools:
    return row.ignored & row.by["fused"].bad_gradient


def bad_loss_options(row: RowFacts) -> Bools:
    return row.options_at_fault


def half_reduction_overflow(row: RowFacts) -> Bools:
    return row.half_reduction


def loss_overflow(row: RowFacts) -> Bools:
    input_at_fault = row.nan_logit | row.inf_logit | row.fully_masked | row.cast_overflow | row.masked_target
    loss_at_fault = row.options_at_fault | row.half_reduction | ignored_row_poisons_gradient(row)
    return row.loss_sum_inf | row.by["fused"].fails & ~(input_at_fault | loss_at_fault)


def exp_overflow(row: RowFacts) -> Bools:
    return row.exp_inf


def sum_overflow(row: RowFacts) -> Bools:
    return row.sum_inf


def sum_underflow(row: RowFacts) -> Bools:
    return row.sum_zero


def subnormal_sum(row: RowFacts) -> Bools:
    return row.sum_subnormal


def probability_underflow(row: RowFacts) -> Bools:
    naive = row.by["naive"]
    sums_fail = row.exp_inf | row.sum_inf | row.sum_zero
    # Smoothing and probability targets take the logarithm of every class's probability.
    elsewhere = naive.bad_loss & ~row.by["fused"].bad_loss & ~sums_fail
    return naive.zero_target_probability | row.zero_classes | elsewhere


def collapsed_loss(row: RowFacts) -> Bools:
    return row.collapsed


def absorbed_log_sum(row: RowFacts) -> Bools:
    return row.absorbed


def reciprocal_overflow(row: RowFacts) -> Bools:
    naive = row.by["naive"]
    # No reciprocal is in the backward pass of fused: where that fails too, something else is at fault.
    return naive.bad_gradient & ~naive.bad_loss & ~row.by["fused"].bad_gradient


def vanishing_gradient(row: RowFacts) -> Bools:
    return row.vanished


def low_headroom(row: RowFacts) -> Bools:
    return row.low_headroom


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

_CATALOGUE = (
    Rule(
        "NH001", "nan-logits", _E, nan_logits,
        "The row holds NaN.",
        "One NaN makes the row's maximum, sum and every probability NaN, in every implementation.",
        "Find what produced it (nanhunt run names the operation); nothing after the logits can repair it.",
    ),
    Rule(
        "NH002", "inf-logits", _E, inf_logits,
        "The row holds +inf.",
        "inf - inf is NaN, so even the shifted softmax fails: the row maximum is inf and the row has no finite shift.",
        "Find the overflow before the logits, often a float16 matmul: compute it in float32 or bfloat16.",
    ),
    Rule(
        "NH003", "fully-masked-row", _E, fully_masked_row,
        "Every class of the row is -inf.",
        "The maximum is -inf and -inf - -inf is NaN: a softmax over nothing has no value.",
        "Drop such rows before the loss, or mask with a large finite number instead of -inf.",
    ),
    Rule(
        "NH004", "cast-overflow", _E, cast_overflow,
        "A logit that is finite in the file is infinite (float8_e4m3fn: saturated) in the chosen dtype.",
        "The value is beyond the format's largest number, so the cast destroys it before any softmax runs.",
        "Keep the logits in float32 or bfloat16 for the loss, or scale them down before the cast.",
    ),
    Rule(
        "NH005", "target-out-of-range", _E, target_out_of_range,
        "A label lies outside 0..classes-1 and is not the ignored index.",
        "F.cross_entropy raises IndexError (a device-side assert on CUDA); hand-written indexing with -1 silently "
        "takes the last class.",
        "Validate labels before the loss; give padding the ignored index.",
    ),
    Rule(
        "NH006", "masked-target", _E, masked_target,
        "The label's own logit is -inf.",
        "The label has probability 0 by construction, so the true loss is infinite in every implementation.",
        "Do not mask the class that is the label, or ignore that row: label and mask contradict each other.",
    ),
    Rule(
        "NH007", "all-targets-ignored", _E, all_targets_ignored,
        "The mean is taken over no rows: every label is ignored, or the batch is empty.",
        "The mean divides a sum of 0 by a count of 0: 0/0 is NaN, while the gradient is silently 0.",
        "Divide the sum by max(number of kept rows, 1), or skip the batch.",
    ),
    Rule(
        "NH008", "ignored-row-poisons-gradient", _E, ignored_row_poisons_gradient,
        "The label is ignored, yet the row's gradient is not finite.",
        "The loss leaves the row out, but the backward pass of log_softmax still computes 0 - softmax * 0, and "
        "NaN * 0 is NaN.",
        "Select the kept rows before the loss instead of relying on ignore_index.",
    ),
    Rule(
        "NH009", "bad-loss-options", _E, bad_loss_options,
        "Weights, smoothing, temperature or probability targets make even F.cross_entropy NaN or infinite.",
        "Weights that sum to 0 divide 0/0; smoothing puts a share on a -inf class; probability 0 on a -inf class is "
        "0 * -inf; a temperature near 0 overflows x / T.",
        "Mask with a finite value instead of -inf; validate weights and temperature; divide (x - max) by T.",
    ),
    Rule(
        "NH010", "half-reduction-overflow", _E, half_reduction_overflow,
        "F.cross_entropy reduces this many rows, or sums this many classes, wrongly in half precision.",
        "float16 ends at 65,504: from 65,520 rows on the mean's divisor is inf and the loss exactly 0; row losses "
        "that add up past it give inf; log_softmax over the last axis keeps the row sum in half.",
        'Compute the loss in float32: F.cross_entropy(logits.float(), t), or reduction="none" then .float().mean().',
    ),
    Rule(
        "NH011", "loss-overflow", _E, loss_overflow,
        "Even the stable loss or its gradient is beyond the largest number of the dtype.",
        "The loss is at least x_max - x_t: in float16 logits 60,000 and -60,000 are finite, their distance is not.",
        "Compute the loss in a wider dtype; logits this far apart mean that training has diverged.",
    ),
    Rule(
        "NH101", "exp-overflow", _W, exp_overflow,
        "An exp of the naive softmax is inf.",
        "exp(x) is beyond the format's largest number, and inf/inf is NaN at that class, finite/inf 0 at the others.",
        "Call F.cross_entropy on the raw logits: it subtracts the row maximum first.",
    ),
    Rule(
        "NH102", "sum-overflow", _W, sum_overflow,
        "No exp is inf, but their sum is.",
        "Every probability becomes finite/inf = 0 with no NaN in sight: the loss is inf, the gradient NaN.",
        "Call F.cross_entropy on the raw logits.",
    ),
    Rule(
        "NH103", "sum-underflow", _W, sum_underflow,
        "Every exp of the naive softmax is 0.",
        "All logits lie below the format's zero cliff, and 0/0 is NaN.",
        "Call F.cross_entropy on the raw logits: after the shift the largest exp is 1.",
    ),
    Rule(
        "NH104", "subnormal-sum", _N, subnormal_sum,
        "The sum of exps is subnormal.",
        "Subnormal numbers hold only a few bits: the probabilities are finite and wrong.",
        "Call F.cross_entropy on the raw logits.",
    ),
    Rule(
        "NH201", "probability-underflow", _W, probability_underflow,
        "A probability that the loss takes the logarithm of is 0 in the naive softmax.",
        "exp, or its quotient with the sum, is below the format's smallest number; -log 0 is inf. The label's does; "
        "with smoothing or probability targets every class's does, also times 0: 0 * inf is NaN.",
        "Call F.cross_entropy on the raw logits: it never forms the probability.",
        targetless=_N,
    ),
    Rule(
        "NH202", "collapsed-loss", _N, collapsed_loss,
        "Loss and label gradient of F.cross_entropy are exactly 0, the truth is not.",
        "The label's probability rounds to 1, so the row no longer trains.",
        "Compute the loss in a wider dtype; at p this near 1, log1p keeps what is left.",
    ),
    Rule(
        "NH203", "absorbed-log-sum", _N, absorbed_log_sum,
        "m + log(s) - x_t is off by more than its rounding bound where F.cross_entropy is right.",
        "log(s) is at most ln(classes) and is rounded away when it is added to a huge maximum m.",
        "Subtract first: (x_t - m) - log(s), which is what F.log_softmax does.",
    ),
    Rule(
        "NH301", "reciprocal-overflow", _W, reciprocal_overflow,
        "The loss is finite, its gradient is not.",
        "The backward pass of -log p multiplies by 1/p (and that of the division by 1/sum), which overflows while p "
        "itself is still above 0.",
        "Call F.cross_entropy on the raw logits: its gradient is p - 1, no reciprocal.",
    ),
    Rule(
        "NH302", "vanishing-gradient", _N, vanishing_gradient,
        "Outside the target every gradient entry is 0 in the dtype, though not in truth.",
        "p, or p/N after the mean, is below half the smallest subnormal number: only the target's logit is trained.",
        "Compute the loss in float32, or scale it up before backward (GradScaler).",
    ),
    Rule(
        "NH401", "low-headroom", _N, low_headroom,
        "The row is within 10 % of the exp limit of the dtype, or of its largest value.",
        "The next few steps may push it over: exp(x) doubles every 0.69.",
        "Use F.cross_entropy and a wider dtype before it happens; watch the largest logit.",
    ),
    Rule(
        "NH501", "non-finite-values", _E, None,
        "A tensor that is not logits holds NaN or inf.",
        "A weight or optimizer moment that is not finite makes every later step NaN.",
        "Go back to an earlier checkpoint; find the step that wrote it (nanhunt run).",
    ),
    Rule(
        "NH502", "cast-loss", _W, None,
        "Values of such a tensor overflow or flush to zero in the chosen dtype.",
        "They are beyond the format's largest number, or below half its smallest.",
        "Keep this tensor in float32, or in bfloat16, which has float32's range.",
    ),
)  # fmt: skip

RULES: dict[str, Rule] = {rule.code: rule for rule in _CATALOGUE}
VALUE_RULES = ("NH501", "NH502")
"""The rules of tensors that are not logits."""
TARGET_RULES = frozenset({"NH005", "NH006", "NH007", "NH008", "NH011", "NH202", "NH203", "NH301", "NH302"})
"""Rules about the loss: nothing to judge without targets."""


def find(text: str) -> Rule:
    """The rule with that code or name, in any case. NanhuntError, with the nearest ones, for anything else."""
    wanted = text.strip()
    for rule in RULES.values():
        if wanted.upper() == rule.code or wanted.lower() == rule.name:
            return rule
    known = [word for rule in RULES.values() for word in (rule.code, rule.name)]
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    near = near or [word for word in known if wanted and wanted.lower() in word][:3]
    meant = f"Did you mean {', '.join(near)}? " if near else ""
    raise NanhuntError(f"There is no rule {text!r}.", f"{meant}`nanhunt rule --all` lists them.")


def chosen(select: Iterable[str], ignore: Iterable[str]) -> frozenset[str]:
    """The codes left by --select and --ignore, each a code, a name or a prefix of codes like NH1."""
    picked = frozenset().union(*(_codes(item) for item in select)) or frozenset(RULES)
    return picked - frozenset().union(*(_codes(item) for item in ignore))


def _codes(text: str) -> frozenset[str]:
    prefix = text.strip().upper()
    matching = (
        frozenset(code for code in RULES if code.startswith(prefix)) if prefix.startswith("NH") else None
    )
    return matching or frozenset({find(text).code})
