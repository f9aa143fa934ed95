"""The rules of softmax and cross entropy: each one object that says what holds, why, and what mends it.

The order is the order of causes: a row that several rules hold for has the first as its cause. ``nanhunt rule``, the
reports and the README table are made of these objects. No import of torch or numpy.

A verdict cannot be missed: whatever row makes ``F.cross_entropy`` fail holds an error (NH011 takes what no other
error explains), and whatever row makes the naive form fail a warning at least (NH201 takes the losses, NH301 the
gradients that nothing else explains).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from nanhunt.operations.cross_entropy import arithmetic, fixes
from nanhunt.operations.rule import Rule
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.cross_entropy.facts import Bools, RowFacts
    from nanhunt.operations.cross_entropy.proof import Tried
    from nanhunt.operations.cross_entropy.row import Row
    from nanhunt.operations.cross_entropy.truth import Question

_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE


def _blank(facts: RowFacts) -> Bools:
    """Rows that are nobody's scores, whatever is made of them; of ignored ones nothing is."""
    return facts.blank & ~facts.ignored


def _ignored_row_poisons_gradient(facts: RowFacts) -> Bools:
    return facts.ignored & facts.by["fused"].bad_gradient


def _loss_overflow(facts: RowFacts) -> Bools:
    input_at_fault = (
        facts.nan_logit | facts.inf_logit | facts.fully_masked | facts.cast_overflow | facts.masked_target
    )
    loss_at_fault = facts.options_at_fault | facts.half_reduction | _ignored_row_poisons_gradient(facts)
    return facts.loss_sum_inf | facts.by["fused"].fails & ~(input_at_fault | loss_at_fault)


def _probability_underflow(facts: RowFacts) -> Bools:
    naive = facts.by["naive"]
    sums_fail = facts.exp_inf | facts.sum_inf | facts.sum_zero
    # Smoothing and probability targets take the logarithm of every class's probability.
    elsewhere = naive.bad_loss & ~facts.by["fused"].bad_loss & ~sums_fail
    return (naive.zero_target_probability | facts.zero_classes | elsewhere) & ~_blank(facts)


def _reciprocal_overflow(facts: RowFacts) -> Bools:
    naive = facts.by["naive"]
    # No reciprocal is in the backward pass of fused: where that fails too, something else is at fault.
    return naive.bad_gradient & ~naive.bad_loss & ~facts.by["fused"].bad_gradient & ~_blank(facts)


# What must hold after a fix beside finite, right losses and gradients.


def _trains(tried: Tried) -> torch.Tensor:
    """The loss is not 0, and the label's gradient is the true one but for a factor of 2."""
    found, true = tried.at_label(tried.gradient), tried.at_label(tried.true_gradient)
    return (tried.loss != 0) & ((found - true).abs() <= 0.5 * true.abs()) & (found != 0)


def _reaches_others(tried: Tried) -> torch.Tensor:
    """Some class beside the label has a gradient."""
    return (tried.outside(tried.gradient) != 0).any(-1)


def _has_gradient(tried: Tried) -> torch.Tensor:
    """The row is trained at all."""
    return (tried.gradient != 0).any(-1)


# Rows whose input is at fault have fixes of their own.


def _largest_is_finite(question: Question) -> torch.Tensor:
    return question.x.amax(-1).isfinite()


_INSTEAD_OF_NAIVE = (*fixes.CALL, *fixes.CROWDED, *fixes.TEMPTING)

if TYPE_CHECKING:
    _Rule: TypeAlias = Rule[RowFacts, Row, Tried]
else:
    _Rule = Rule

RULES: tuple[_Rule, ...] = (
    _Rule(
        "NH001", "nan-logits", _E,
        "The row holds NaN.",
        "One NaN makes the row's maximum, sum and every probability NaN, in every implementation.",
        "Find what produced it (nanhunt run names the operation); nothing after the logits can repair it.",
        holds=lambda facts: facts.nan_logit,
        arithmetic=arithmetic.nan_logits,
        fixes=fixes.TEMPTING_FUSED,
        input_at_fault=True,
        operation="cross-entropy",
    ),
    _Rule(
        "NH002", "inf-logits", _E,
        "The row holds +inf.",
        "inf - inf is NaN, so even the shifted softmax fails: the row maximum is inf and the row has no finite shift.",
        "Find the overflow before the logits, often a float16 matmul: compute it in float32 or bfloat16.",
        holds=lambda facts: facts.inf_logit,
        arithmetic=arithmetic.inf_logits,
        fixes=fixes.TEMPTING_FUSED,
        input_at_fault=True,
        operation="cross-entropy",
    ),
    _Rule(
        "NH003", "fully-masked-row", _E,
        "Every class of the row is -inf.",
        "The maximum is -inf and -inf - -inf is NaN: a softmax over nothing has no value.",
        "Drop such rows before the loss, or mask with a large finite number instead of -inf.",
        holds=lambda facts: facts.fully_masked,
        arithmetic=arithmetic.fully_masked_row,
        fixes=(fixes.DROP, *fixes.MASK, *fixes.TEMPTING_FUSED),
        input_at_fault=True,
        operation="cross-entropy",
    ),
    _Rule(
        "NH004", "cast-overflow", _E,
        "A logit that is finite in the file is infinite (float8_e4m3fn: saturated) in the chosen dtype.",
        "The value is beyond the format's largest number, so the cast destroys it before any softmax runs.",
        "Keep the logits in float32 or bfloat16 for the loss, or scale them down before the cast.",
        holds=lambda facts: facts.cast_overflow,
        arithmetic=arithmetic.cast_overflow,
        fixes=(*fixes.UNCAST, fixes.TEMPTING_FUSED[0]),
        input_at_fault=True,
        operation="cross-entropy",
    ),
    _Rule(
        "NH005", "target-out-of-range", _E,
        "A label lies outside 0..classes-1 and is not the ignored index.",
        "F.cross_entropy raises IndexError (a device-side assert on CUDA); hand-written indexing with -1 silently "
        "takes the last class.",
        "Validate labels before the loss; give padding the ignored index.",
        holds=lambda facts: facts.bad_label,
        arithmetic=arithmetic.target_out_of_range,
        fixes=(fixes.VALIDATE,),
        needs_targets=True,
        operation="cross-entropy",
    ),
    _Rule(
        "NH006", "masked-target", _E,
        "The label's own logit is -inf.",
        "The label has probability 0 by construction, so the true loss is infinite in every implementation.",
        "Do not mask the class that is the label, or ignore that row: label and mask contradict each other.",
        holds=lambda facts: facts.masked_target,
        arithmetic=arithmetic.masked_target,
        fixes=(fixes.IGNORE_MASKED, fixes.CALL[0]),
        input_at_fault=True,
        sound=_largest_is_finite,
        needs_targets=True,
        operation="cross-entropy",
    ),
    _Rule(
        "NH007", "all-targets-ignored", _E,
        "The mean is taken over no rows: every label is ignored, or the batch is empty.",
        "The mean divides a sum of 0 by a count of 0: 0/0 is NaN, while the gradient is silently 0.",
        "Divide the sum by max(number of kept rows, 1), or skip the batch.",
        holds=lambda facts: facts.mean_of_none,
        arithmetic=arithmetic.all_targets_ignored,
        fixes=(fixes.GUARD, fixes.GUARD_WEIGHTS),
        needs_targets=True,
        operation="cross-entropy",
    ),
    _Rule(
        "NH008", "ignored-row-poisons-gradient", _E,
        "The label is ignored, yet the row's gradient is not finite.",
        "The loss leaves the row out, but the backward pass of log_softmax still computes 0 - softmax * 0, and "
        "NaN * 0 is NaN.",
        "Select the kept rows before the loss instead of relying on ignore_index.",
        holds=_ignored_row_poisons_gradient,
        arithmetic=arithmetic.ignored_row_poisons_gradient,
        fixes=(fixes.SELECT, *fixes.TEMPTING_FUSED),
        input_at_fault=True,
        needs_targets=True,
        operation="cross-entropy",
    ),
    _Rule(
        "NH009", "bad-loss-options", _E,
        "Weights, smoothing, temperature or probability targets make even F.cross_entropy NaN or infinite.",
        "Weights that sum to 0 divide 0/0; smoothing puts a share on a -inf class; probability 0 on a -inf class is "
        "0 * -inf; a temperature near 0 overflows x / T.",
        "Mask with a finite value instead of -inf; validate weights and temperature; divide (x - max) by T.",
        holds=lambda facts: facts.options_at_fault,
        arithmetic=arithmetic.bad_loss_options,
        fixes=(
            fixes.SHIFT, fixes.SHIFT_SOFTMAX, *fixes.UNCAST, fixes.SKIP_ZERO, fixes.SMOOTH_UNMASKED,
            fixes.GUARD_WEIGHTS, fixes.IGNORE_MASKED, fixes.MASK_OTHERS, fixes.MASK[1], fixes.TEMPTING_FUSED[0],
        ),
        sound=_largest_is_finite,
        operation="cross-entropy",
    ),
    _Rule(
        "NH010", "half-reduction-overflow", _E,
        "F.cross_entropy reduces this many rows, or sums this many classes, wrongly in half precision.",
        "float16 ends at 65,504: from 65,520 rows on the mean's divisor is inf and the loss exactly 0; row losses "
        "that add up past it give inf; log_softmax over the last axis keeps the row sum in half.",
        'Compute the loss in float32: F.cross_entropy(logits.float(), t), or reduction="none" then .float().mean().',
        holds=lambda facts: facts.half_reduction,
        arithmetic=arithmetic.half_reduction_overflow,
        fixes=(*fixes.FLOAT32, fixes.NONE_THEN_FLOAT),
        mended=_has_gradient,
        operation="cross-entropy",
    ),
    _Rule(
        "NH011", "loss-overflow", _E,
        "Even the stable loss or its gradient is beyond the largest number of the dtype.",
        "The loss is at least x_max - x_t: in float16 logits 60,000 and -60,000 are finite, their distance is not.",
        "Compute the loss in a wider dtype; logits this far apart mean that training has diverged.",
        holds=_loss_overflow,
        arithmetic=arithmetic.loss_overflow,
        fixes=fixes.WIDER,
        needs_targets=True,
        operation="cross-entropy",
    ),
    _Rule(
        "NH012", "constant-row", _E,
        "Every logit of the row is the same number, 1,000 or more in size: -1e30, the lowest of the dtype.",
        "No model scores so: a NaN was replaced (nan_to_num, where), or a finite mask covers every class. The softmax "
        "is uniform, the loss is log(classes) whatever the label, and looks healthy.",
        "Find what was replaced (nanhunt run names the operation that made it), and leave such rows out. That "
        "F.cross_entropy is finite here mends nothing.",
        operation="cross-entropy",
        holds=_blank,
        arithmetic=arithmetic.constant_row,
        fixes=(fixes.DROP_CONSTANT,),
        input_at_fault=True,
    ),
    _Rule(
        "NH101", "exp-overflow", _W,
        "An exp of the naive softmax is inf.",
        "exp(x) is beyond the format's largest number, and inf/inf is NaN at that class, finite/inf 0 at the others.",
        "Call F.cross_entropy on the raw logits: it subtracts the row maximum first.",
        holds=lambda facts: facts.exp_inf & ~_blank(facts),
        arithmetic=arithmetic.exp_overflow,
        fixes=_INSTEAD_OF_NAIVE,
        operation="cross-entropy",
    ),
    _Rule(
        "NH102", "sum-overflow", _W,
        "No exp is inf, but their sum is.",
        "Every probability becomes finite/inf = 0 with no NaN in sight: the loss is inf, the gradient NaN.",
        "Call F.cross_entropy on the raw logits.",
        holds=lambda facts: facts.sum_inf & ~_blank(facts),
        arithmetic=arithmetic.sum_overflow,
        fixes=_INSTEAD_OF_NAIVE,
        operation="cross-entropy",
    ),
    _Rule(
        "NH103", "sum-underflow", _W,
        "Every exp of the naive softmax is 0.",
        "All logits lie below the format's zero cliff, and 0/0 is NaN.",
        "Call F.cross_entropy on the raw logits: after the shift the largest exp is 1.",
        holds=lambda facts: facts.sum_zero & ~_blank(facts),
        arithmetic=arithmetic.sum_underflow,
        fixes=_INSTEAD_OF_NAIVE,
        operation="cross-entropy",
    ),
    _Rule(
        "NH104", "subnormal-sum", _N,
        "The sum of exps is subnormal.",
        "Subnormal numbers hold only a few bits: the probabilities are finite and wrong.",
        "Call F.cross_entropy on the raw logits.",
        holds=lambda facts: facts.sum_subnormal,
        arithmetic=arithmetic.subnormal_sum,
        fixes=fixes.CALL,
        operation="cross-entropy",
    ),
    _Rule(
        "NH201", "probability-underflow", _W,
        "A probability that the loss takes the logarithm of is 0 in the naive softmax.",
        "exp, or its quotient with the sum, is below the format's smallest number; -log 0 is inf. The label's does; "
        "with smoothing or probability targets every class's does, also times 0: 0 * inf is NaN.",
        "Call F.cross_entropy on the raw logits: it never forms the probability.",
        holds=_probability_underflow,
        arithmetic=arithmetic.probability_underflow,
        fixes=(*fixes.CALL_LOG, *fixes.CROWDED, *fixes.TEMPTING),
        targetless=_N,
        operation="cross-entropy",
    ),
    _Rule(
        "NH202", "collapsed-loss", _N,
        "Loss and label gradient of F.cross_entropy are exactly 0, the truth is not.",
        "The label's probability rounds to 1, so the row no longer trains.",
        "Compute the loss in a wider dtype; at p this near 1, log1p keeps what is left.",
        holds=lambda facts: facts.collapsed,
        arithmetic=arithmetic.collapsed_loss,
        fixes=(fixes.SOFTPLUS, *fixes.WIDER),
        mended=_trains,
        needs_targets=True,
        operation="cross-entropy",
    ),
    _Rule(
        "NH203", "absorbed-log-sum", _N,
        "m + log(s) - x_t is off by more than its rounding bound where F.cross_entropy is right.",
        "log(s) is at most ln(classes) and is rounded away when it is added to a huge maximum m.",
        "Subtract first: (x_t - m) - log(s), which is what F.log_softmax does.",
        holds=lambda facts: facts.absorbed & ~_blank(facts),
        arithmetic=arithmetic.absorbed_log_sum,
        fixes=(*fixes.CALL, fixes.SUBTRACT, *fixes.WIDER),
        needs_targets=True,
        operation="cross-entropy",
    ),
    _Rule(
        "NH301", "reciprocal-overflow", _W,
        "The loss is finite, its gradient is not.",
        "The backward pass of -log p multiplies by 1/p (and that of the division by 1/sum), which overflows while p "
        "itself is still above 0.",
        "Call F.cross_entropy on the raw logits: its gradient is p - 1, no reciprocal.",
        holds=_reciprocal_overflow,
        arithmetic=arithmetic.reciprocal_overflow,
        fixes=(*fixes.CALL, *fixes.WIDER, *fixes.TEMPTING),
        needs_targets=True,
        operation="cross-entropy",
    ),
    _Rule(
        "NH302", "vanishing-gradient", _N,
        "Outside the target every gradient entry is 0 in the dtype, though not in truth.",
        "p, or p/N after the mean, is below half the smallest subnormal number: only the target's logit is trained.",
        "Compute the loss in float32, or scale it up before backward (GradScaler).",
        holds=lambda facts: facts.vanished,
        arithmetic=arithmetic.vanishing_gradient,
        fixes=(fixes.SCALE, *fixes.UNCAST, *fixes.WIDER),
        mended=_reaches_others,
        needs_targets=True,
        operation="cross-entropy",
    ),
    _Rule(
        "NH401", "low-headroom", _N,
        "The row is within 10 % of the exp limit of the dtype, or of its largest value.",
        "The next few steps may push it over: exp(x) doubles every 0.69.",
        "Use F.cross_entropy and a wider dtype before it happens; watch the largest logit.",
        holds=lambda facts: facts.low_headroom & ~_blank(facts),
        arithmetic=arithmetic.low_headroom,
        fixes=(*fixes.CALL, *fixes.WIDER),
        operation="cross-entropy",
    ),
    _Rule(
        "NH402", "uniform-row", _N,
        "Every logit of the row is the same number, so that its softmax is uniform.",
        "A head that starts at 0 gives such rows, and padding; so does NaN that was replaced (nan_to_num: by 0).",
        "Where other rows differ, look at what these held before (nanhunt run); give padding the ignored index.",
        operation="cross-entropy",
        holds=lambda facts: facts.constant & ~_blank(facts) & ~facts.ignored,
        arithmetic=arithmetic.constant_row,
    ),
)  # fmt: skip

OF_CERTAIN_LOGITS = frozenset({"NH012", "NH402"})
"""Rows of one number are a word about logits only: a bias of ones, a mask of -1e30 may well be so."""
