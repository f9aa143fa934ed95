"""The arithmetic behind a finding, from the numbers of one of its rows: a sentence a rule.

No import of torch or numpy: the catalogue, which holds these functions, is read without them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nanhunt.dtypes.formats import FORMATS

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.cross_entropy.row import Row


def _g(value: float | torch.Tensor, digits: int = 6) -> str:
    return f"{float(value):.{digits}g}"


def _top(n: Row) -> float:
    return float(n.z[~n.z.isnan()].max()) if not bool(n.z.isnan().all()) else math.nan


def nan_logits(n: Row) -> str:
    """How many logits of the row are NaN, and the first of their classes."""
    bad = n.stored.isnan()
    return f"{int(bad.sum()):,} of {len(bad):,} logits are NaN, the first at class {n.first(bad)}"


def inf_logits(n: Row) -> str:
    """How many logits of the row are +inf, and the first of their classes."""
    bad = n.stored == math.inf
    return f"{int(bad.sum()):,} of {len(bad):,} logits are +inf, the first at class {n.first(bad)}; inf - inf = NaN"


def fully_masked_row(n: Row) -> str:
    """Why a row of nothing but -inf has no softmax."""
    return f"all {len(n.stored):,} logits are -inf, so max = -inf and -inf - -inf = NaN"


def cast_overflow(n: Row) -> str:
    """The logit that the dtype cannot hold, and what it becomes."""
    size = n.stored.abs()
    beyond = n.x.isinf() if n.storage.has_infinity else (size > n.storage.overflow)
    beyond &= size.isfinite()
    at = n.first(beyond)
    becomes = "becomes" if n.storage.has_infinity else "saturates at"
    return (
        f"logit {_g(n.stored[at], 8)} at class {at} {becomes} {_g(n.x[at])} in {n.job.dtype}, "
        f"whose largest number is {_g(n.storage.max)}"
    )


def target_out_of_range(n: Row) -> str:
    """The label, and what handwritten indexing would take in its place."""
    wraps = "; hand-written indexing would silently take class " + str(len(n.x) + (n.label or 0))
    silently = wraps if n.label is not None and -len(n.x) <= n.label < 0 else ""
    return f"label {n.label} is outside 0..{len(n.x) - 1}; F.cross_entropy raises IndexError{silently}"


def masked_target(n: Row) -> str:
    """The wanted class that a mask has forbidden."""
    if n.label is None:
        return "a class with probability above 0 has logit -inf, so -log 0 = inf"
    return f"the logit of label {n.label} is -inf, so its probability is 0 and -log 0 = inf"


def all_targets_ignored(n: Row) -> str:
    """The mean over no rows."""
    return f"all {n.job.rows.count:,} rows are left out: 0 / 0 = NaN"


def ignored_row_poisons_gradient(n: Row) -> str:
    """What the ignored row holds: its weight of 0 does not make up for a NaN."""
    what = (
        "NaN" if bool(n.x.isnan().any()) else "+inf" if bool((n.x == math.inf).any()) else "nothing but -inf"
    )
    loss = _g(n.loss("fused"))
    return f"label {n.label} is ignored and the loss is {loss}, but the row holds {what}: 0 * NaN = NaN"


def bad_loss_options(n: Row) -> str:
    """Which of temperature, class weights, smoothing and probability targets spoils the loss."""
    options = n.job.options
    if not bool(n.z.isfinite().all() | (n.z.isinf() == n.x.isinf()).all()) or options.temperature == 0:
        at = n.first(~n.z.isfinite() & n.x.isfinite())
        t = f"{options.temperature:g}"
        return f"temperature {t}: {_g(n.x[at])} / {t} = {_g(n.z[at])} in {n.format.name}"
    weights = n.job.weights
    if weights is not None and n.label in range(len(weights)) and not math.isfinite(weights[n.label]):
        return f"the class weight of label {n.label} is {weights[n.label]:g}"
    if weights is not None and (n.job.divisor == 0 or not math.isfinite(n.job.divisor)):
        return f"the class weights of the labels add up to {n.job.divisor:g}, and the mean divides by that"
    masked = int((n.x == -math.inf).sum())
    if options.label_smoothing:
        return (
            f"label smoothing {options.label_smoothing:g} puts {_g(options.label_smoothing / len(n.x))} on each class, "
            f"also on {masked:,} masked ones: -log 0 = inf"
        )
    if n.label is None:
        return f"probability targets on {masked:,} masked classes: 0 * -inf = NaN"
    return f"class weight 0 times an infinite loss: loss {_g(n.loss('fused'))} for label {n.label}"


def half_reduction_overflow(n: Row) -> str:
    """What float16 cannot hold: the sum of exps, the sum of losses, or the number of rows."""
    exps = float((n.z - n.z.amax()).double().exp().sum())
    if not n.job.sum_overflows and exps >= FORMATS["float16"].max:
        return f"{len(n.x):,} shifted exps add up to {exps:,.0f} > 65,504, the largest float16"
    if n.job.sum_overflows:
        smoothed = ", with -log p of every class before smoothing," if n.job.options.label_smoothing else ""
        return f"the row losses{smoothed} add up past 65,504, the largest float16: the sum is inf"
    return f"the mean divides by {n.job.kept:,} rows, which is inf in float16 (from 65,520 on): the loss is 0"


def loss_overflow(n: Row) -> str:
    """The fused loss beside the true one, where the dtype's largest number lies between them."""
    if n.job.sum_overflows:
        return f"the row losses add up past {_g(n.format.max)}, the largest {n.format.name}: the sum is inf"
    gives, true = f"F.cross_entropy gives {_g(n.loss('fused'))}", f"the true loss is {_g(n.true_loss)}"
    if abs(n.true_loss) > n.format.max:
        return f"{gives}; {true}, beyond {_g(n.format.max)}, the largest {n.format.name}"
    finite = bool(n.fused_gradient.isfinite().all())
    return f"{gives}; {true}" if finite else f"{gives} and a gradient that is not finite; {true}"


def exp_overflow(n: Row) -> str:
    """The largest logit beside the largest x whose exp is finite."""
    return (
        f"max {_g(_top(n))} > {n.format.exp_limit:.2f}, the largest x whose exp is finite in {n.format.name}"
    )


def sum_overflow(n: Row) -> str:
    """The sum of the row's exps beside the largest number of the dtype."""
    total = float(n.z.double().exp().sum())
    limit = f"{n.format.max:.6g}, the largest {n.format.name}"
    return f"{len(n.z):,} exps add up to {total:.6g} > {limit}; max is {_g(_top(n))}"


def constant_row(n: Row) -> str:
    """The one number that all of the row's logits are, and the softmax that follows."""
    classes, value = len(n.stored), _g(n.stored[0])
    loss = "" if n.job.targets is None else f"; the loss is {_g(n.loss('fused'))} whatever the label"
    return f"all {classes:,} logits are {value}: softmax is uniform, 1/{classes:,} each{loss}"


def sum_underflow(n: Row) -> str:
    """The largest logit beside the smallest x whose exp is above 0: 0 / 0."""
    return f"max {_g(_top(n))} < {n.format.exp_zero:.2f}, the smallest x whose exp is above 0 in {n.format.name}: 0/0"


def subnormal_sum(n: Row) -> str:
    """The sum of the row's exps beside the smallest normal number."""
    total = float(n.e.sum())
    limit = f"{n.format.smallest_normal:.3g}, the smallest normal {n.format.name}"
    return f"max {_g(_top(n))}: the exps add up to {total:.3g} < {limit}"


def probability_underflow(n: Row) -> str:
    """The probability that is above 0 in truth and 0 in the dtype, and the true loss."""
    if n.job.targets is None:
        zero = ((n.e / n.e.sum() == 0) & (n.z != -math.inf)).sum()
        unmasked = (n.z != -math.inf).sum()
        return f"loss is inf if the label is one of {int(zero):,} of {int(unmasked):,} classes"
    if n.label is None or (n.job.options.label_smoothing and n.e[n.label] / n.e.sum() != 0):
        return _zero_in_the_sum(n)
    x_t, total = float(n.z[n.label]), float(n.e.sum())
    p = math.exp(min(700.0, x_t - float(n.z.double().logsumexp(0)))) if math.isfinite(x_t) else 0.0
    if not math.isfinite(total):
        return f"p = exp({_g(x_t)}) / inf = 0 for label {n.label}, so -log p = inf; the true loss is {_g(n.true_loss)}"
    return (
        f"p of label {n.label} is {p:.3g} in truth and 0 in {n.format.name} (exp({_g(x_t)}) / {total:.4g}); "
        f"the true loss is {_g(n.true_loss)}"
    )


def _zero_in_the_sum(n: Row) -> str:
    """The class of probability 0 that the loss wants most; those it does not want at all make it NaN too."""
    zero = n.e / n.e.sum() == 0
    if not bool(zero.any()):
        return f"the naive loss is {_g(n.loss('naive'))}, F.cross_entropy gives {_g(n.loss('fused'))}"
    at = int(n.wanted.where(zero, -1.0).argmax())
    p = math.exp(max(-745.0, float(n.z.double().log_softmax(0)[at]))) if n.z[at] > -math.inf else 0.0
    share = float(n.wanted[at])
    becomes = f"{share:.3g} * -log 0 = inf" if share else "0 * -log 0 = NaN"
    is_0 = f"{p:.3g} in truth and 0 in {n.format.name}"
    return f"class {at} should have a share of {share:.3g} of the loss; its p is {is_0}: {becomes}"


def collapsed_loss(n: Row) -> str:
    """By how much the label leads, so that its loss rounds to 0, and the loss in truth."""
    gap = _runner_up_gap(n)
    lead = f"label {n.label} leads by {_g(gap)}"
    return f"{lead}: the loss rounds to 0 in {n.format.name}, the truth is {n.true_loss:.3g}"


def _runner_up_gap(n: Row) -> float:
    others = n.z.double().clone()
    others[n.label or 0] = -math.inf
    return float(n.z[n.label or 0]) - float(others.max())


def absorbed_log_sum(n: Row) -> str:
    """The handwritten log-sum-exp, the fused loss and the truth side by side."""
    return (
        f"max {_g(_top(n))} + log(s) - x_t gives {_g(n.loss('logsumexp'))}, F.cross_entropy {_g(n.loss('fused'))}, "
        f"the truth is {_g(n.true_loss)}"
    )


def reciprocal_overflow(n: Row) -> str:
    """The probability whose reciprocal overflows in the backward pass of a finite loss."""
    total = n.e.sum()
    # An ignored row gathers class 0.
    at = 0 if n.label is None or n.label not in range(len(n.z)) else n.label
    if n.label is None or n.job.options.label_smoothing:
        at = int((n.e / total).argmin())
    p = float(n.e[at] / total)
    if math.isnan(p) or p == 0:
        return f"the row is left out of the loss, but p = {p:.3g}: 0 * {_g(-p if p else math.inf)} in the backward pass"
    return (
        f"loss {_g(n.loss('naive'))} is finite, but p = {p:.3g} (sum {float(total):.4g}): its reciprocal "
        f"overflows {n.format.name} in the backward pass"
    )


def vanishing_gradient(n: Row) -> str:
    """The largest entry of the gradient in truth, beside the dtype's smallest number."""
    others = n.z.double().softmax(0)
    others[n.label or 0] = 0.0
    entry = float(others.max()) * abs(float(n.job.batch.fused_gradient.double()) or 1.0 / max(1, n.job.kept))
    smallest = f"the smallest {n.format.name} is {n.format.smallest_subnormal:.3g}"
    return f"the largest of them is {entry:.3g} in truth; {smallest}"


def low_headroom(n: Row) -> str:
    """How far the largest logit is from the limit of exp, or the largest magnitude from that of the dtype."""
    top, limit = _top(n), n.format.exp_limit
    if 0.9 * limit <= top <= limit:
        below = f"{_g(limit - top, 3)} below {limit:.2f}"
        return f"max {_g(top)} is {below}, the largest x whose exp is finite in {n.format.name}"
    size = float(n.x[n.x != -math.inf].abs().max())
    return f"a logit of magnitude {_g(size)} is near {_g(n.storage.max)}, the largest {n.job.dtype}"
