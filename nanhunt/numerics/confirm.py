"""Runs the four implementations forward and backward on a block of rows and says what each row did.

Nothing here is predicted: exps, sums, losses and gradients are the ones that PyTorch computes in the dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from nanhunt.floats import FORMATS, compute_format
from nanhunt.numerics.facts import Behaviour, Bools, RowFacts
from nanhunt.numerics.formats import Array, to_torch, torch_dtype
from nanhunt.numerics.losses import IMPLEMENTATIONS, Implementation, Labels, LossOptions, Outcome, fused
from nanhunt.numerics.truth import TrueRows, truth

Floats = npt.NDArray[np.float64]

LOSS_BOUND = 64.0
"""A loss is right while its error is below LOSS_BOUND u max(1, |loss|, ln classes): six bits more than one rounding
of each of the terms that Blanchard, Higham & Higham (2021) bound it by, room for every order of summation."""


@dataclass(frozen=True)
class Batch:
    """What every block must know about the whole tensor."""

    stored: str
    dtype: str
    """The dtype to judge in; float8 is cast to it and then upcast, since it has no arithmetic."""
    options: LossOptions
    hand_gradient: torch.Tensor
    """0-d: what the reduction hands back to each row loss in the handwritten forms (mean: 1/N, in the dtype)."""
    fused_gradient: torch.Tensor
    """0-d: the same inside ``F.cross_entropy``, which divides by a tensor of the dtype."""
    fused_plain_gradient: torch.Tensor
    """0-d: the same without class weights."""


@dataclass(frozen=True)
class RowTargets:
    """Targets of the rows of one block."""

    labels: npt.NDArray[np.int64] | None = None
    """(rows,); None and no probabilities: take each row's least likely unmasked class."""
    ignored: Bools | None = None
    bad: Bools | None = None
    probabilities: torch.Tensor | None = None


@dataclass(frozen=True)
class Confirmed:
    """Facts and numbers of one block."""

    facts: RowFacts
    losses: dict[str, Floats]
    """Row losses by implementation; 0 for ignored rows, NaN for rows with a bad label."""
    truth: Floats
    handwritten_truth: Floats
    uncast_truth: Floats | None
    """Truth of the logits as stored; None where nothing was cast."""


def confirm(block: Array, targets: RowTargets, batch: Batch) -> Confirmed:
    """Runs everything on stored values ``block`` (rows, classes)."""
    stored = to_torch(block, batch.stored)
    x = cast(stored, batch.dtype)
    labels, bad = labels_of(x, targets)
    facts = _input_facts(stored, x, labels, bad, targets, batch)
    _naive_facts(facts, x, batch, targets)
    true = truth(x, labels, batch.options)
    losses: dict[str, torch.Tensor] = {}
    for name, implementation in IMPLEMENTATIONS.items():
        outcome, gradient = run(implementation, x, labels, batch)
        losses[name] = outcome.losses.double()
        facts.by[name] = _behaviour(outcome, gradient, labels, bad)
        if implementation is fused:
            _fused_facts(facts, x, labels, gradient, losses, true, batch, targets)
    values = {name: np.where(bad, np.nan, loss.numpy()) for name, loss in losses.items()}
    uncast = (
        None
        if batch.dtype == batch.stored
        else _but_bad(truth(_base(stored), labels, batch.options).losses, bad)
    )
    return Confirmed(facts, values, _but_bad(true.losses, bad), _but_bad(true.handwritten, bad), uncast)


def cast(stored: torch.Tensor, dtype: str) -> torch.Tensor:
    """Stored logits as the loss sees them in ``dtype``; float8 upcast to float32 afterwards."""
    return _base(stored).to(torch_dtype(dtype)).to(torch_dtype(compute_format(dtype).name))


def _base(stored: torch.Tensor) -> torch.Tensor:
    """Stored values in a dtype that has arithmetic."""
    return stored.float() if stored.dtype.itemsize == 1 else stored


def labels_of(x: torch.Tensor, targets: RowTargets) -> tuple[Labels, Bools]:
    """(what the losses are given, which rows have an unusable label)."""
    rows = len(x)
    nothing = np.zeros(rows, bool)
    if targets.probabilities is not None:
        return Labels(None, torch.ones(rows, dtype=torch.bool), targets.probabilities.to(x.dtype)), nothing
    if targets.labels is None:
        worst = x.masked_fill(x == -math.inf, math.inf).argmin(-1)
        return Labels(worst, torch.ones(rows, dtype=torch.bool)), nothing
    bad = nothing if targets.bad is None else targets.bad
    ignored = nothing if targets.ignored is None else targets.ignored
    kept = ~(bad | ignored)
    return Labels(torch.from_numpy(np.where(kept, targets.labels, 0)), torch.from_numpy(kept)), bad


def run(
    implementation: Implementation, x: torch.Tensor, labels: Labels, batch: Batch
) -> tuple[Outcome, torch.Tensor]:
    """Forward, and the gradient (rows, classes) of the loss as reduced over the whole tensor."""
    leaf = x.detach().requires_grad_()
    outcome = implementation(leaf, labels, batch.options)
    upstream = batch.fused_gradient if implementation is fused else batch.hand_gradient
    (gradient,) = torch.autograd.grad(outcome.losses, leaf, upstream.expand(len(x)))
    return Outcome(outcome.probabilities, outcome.losses.detach()), gradient


def heated(x: torch.Tensor, options: LossOptions) -> torch.Tensor:
    """Logits divided by the temperature, as every implementation divides them."""
    return x if options.temperature == 1.0 else x / options.temperature


def _input_facts(
    stored: torch.Tensor, x: torch.Tensor, labels: Labels, bad: Bools, targets: RowTargets, batch: Batch
) -> RowFacts:
    base = _base(stored)
    false = np.zeros(len(x), bool)
    later: dict[str, Any] = {name: false.copy() for name in _FILLED_LATER}
    top = base.amax(-1)
    given = labels.classes is not None and targets.labels is not None
    return RowFacts(
        nan_logit=top.isnan().numpy(),
        inf_logit=(base == math.inf).any(-1).numpy(),
        fully_masked=(top == -math.inf).numpy(),
        cast_overflow=_cast_overflow(base, x, batch.dtype) if batch.dtype != batch.stored else false,
        bad_label=bad.copy(),
        ignored=false if targets.ignored is None else targets.ignored.copy(),
        masked_target=_masked_target(base, labels) if given or labels.probabilities is not None else false,
        low_headroom=_low_headroom(x, batch),
        **later,
    )


_FILLED_LATER = (
    "exp_inf", "sum_inf", "sum_zero", "sum_subnormal", "zero_classes",
    "options_at_fault", "half_reduction", "mean_of_none", "collapsed", "absorbed", "vanished",
)  # fmt: skip


def _cast_overflow(base: torch.Tensor, x: torch.Tensor, dtype: str) -> Bools:
    if dtype == "float8_e4m3fn":  # torch saturates; 464 still rounds to 448
        return ((base.abs() > FORMATS[dtype].overflow) & (base.abs() != math.inf)).any(-1).numpy()
    return (x.isinf() & base.isfinite()).any(-1).numpy()


def _masked_target(base: torch.Tensor, labels: Labels) -> Bools:
    masked = base == -math.inf
    if labels.classes is None:
        assert labels.probabilities is not None
        return (masked & (labels.probabilities > 0)).any(-1).numpy()
    return (masked.gather(-1, labels.classes[:, None])[:, 0] & labels.kept).numpy()


def _low_headroom(x: torch.Tensor, batch: Batch) -> Bools:
    limit, largest = compute_format(batch.dtype).exp_limit, FORMATS[batch.dtype].max
    top = heated(x, batch.options).amax(-1).double()
    size = x.abs().masked_fill(x == -math.inf, 0.0).amax(-1).double()
    near_limit = (top >= 0.9 * limit) & (top <= limit)
    return (near_limit | ((size >= 0.9 * largest) & (size <= largest))).numpy()


def _naive_facts(facts: RowFacts, x: torch.Tensor, batch: Batch, targets: RowTargets) -> None:
    z = heated(x, batch.options)
    e = torch.exp(z)
    total = e.sum(-1)
    exp_inf = (e == math.inf).any(-1)
    facts.exp_inf = exp_inf.numpy()
    facts.sum_inf = ((total == math.inf) & ~exp_inf).numpy()
    facts.sum_zero = (total == 0).numpy()
    facts.sum_subnormal = ((total > 0) & (total < torch.finfo(x.dtype).smallest_normal)).numpy()
    if targets.labels is None and targets.probabilities is None:
        facts.zero_classes = ((e / total[:, None] == 0) & (z != -math.inf)).any(-1).numpy()


def _behaviour(outcome: Outcome, gradient: torch.Tensor, labels: Labels, bad: Bools) -> Behaviour:
    p, losses = outcome.probabilities, outcome.losses
    finite = gradient.amax(-1).isfinite() & gradient.amin(-1).isfinite()
    return Behaviour(
        nan_probability=p.amax(-1).isnan().numpy(),
        zero_target_probability=_zero_target(p, labels).numpy(),
        inf_loss=losses.isinf().numpy() & ~bad,
        nan_loss=losses.isnan().numpy() & ~bad,
        bad_gradient=~finite.numpy() & ~bad,
    )


def _zero_target(p: torch.Tensor, labels: Labels) -> torch.Tensor:
    if labels.classes is None:
        assert labels.probabilities is not None
        return ((p == 0) & (labels.probabilities > 0)).any(-1)
    return (p.gather(-1, labels.classes[:, None])[:, 0] == 0) & labels.kept


def _fused_facts(
    facts: RowFacts, x: torch.Tensor, labels: Labels, gradient: torch.Tensor,
    losses: dict[str, torch.Tensor], true: TrueRows, batch: Batch, targets: RowTargets,
) -> None:  # fmt: skip
    facts.half_reduction = _class_sum_overflow(x, batch)
    facts.options_at_fault = _options_at_fault(facts, x, labels, losses["fused"], batch)
    if targets.labels is None and targets.probabilities is None:
        return  # a label that we chose ourselves has no loss to judge
    facts.absorbed = (
        _wrong(losses["logsumexp"], true.handwritten, x) & ~_wrong(losses["fused"], true.losses, x)
    ).numpy()
    if labels.classes is None:
        return
    t = labels.classes[:, None]
    at_label = gradient.gather(-1, t)[:, 0]
    outside = gradient.scatter(-1, t, 0.0)
    silent = (outside.amax(-1) == 0) & (outside.amin(-1) == 0)
    truly = true.others > 0 if not batch.options.label_smoothing else torch.tensor(x.shape[-1] > 1)
    if batch.options.weights is not None:
        truly = truly & (batch.options.weights[labels.classes] != 0)
    zero_loss = (losses["fused"] == 0) & (true.losses != 0)
    facts.collapsed = (labels.kept & zero_loss & (at_label == 0)).numpy()
    facts.vanished = (labels.kept & silent & truly).numpy()


def _wrong(losses: torch.Tensor, true: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    floor = max(1.0, math.log(x.shape[-1]))
    bound = LOSS_BOUND * torch.finfo(x.dtype).eps / 2 * true.abs().clamp_min(floor)
    return ~((losses - true).abs() <= bound) & (losses != true)


def _class_sum_overflow(x: torch.Tensor, batch: Batch) -> Bools:
    if x.dtype != torch.float16 or not batch.options.last_axis:
        return np.zeros(len(x), bool)
    z = heated(x, batch.options)
    return (F.log_softmax(z, -1).amax(-1).isinf() & z.amax(-1).isfinite()).numpy()


def _options_at_fault(
    facts: RowFacts, x: torch.Tensor, labels: Labels, losses: torch.Tensor, batch: Batch
) -> Bools:
    options = batch.options
    asked = options.temperature != 1 or options.label_smoothing != 0 or options.weights is not None
    fails = ~losses.isfinite().numpy() | facts.by["fused"].bad_gradient
    fails &= ~facts.bad_label
    if not fails.any() or not (asked or labels.probabilities is not None):
        return np.zeros(len(x), bool)
    where = torch.from_numpy(np.flatnonzero(fails))
    rows = x[where]
    classes = rows.argmax(-1) if labels.classes is None else labels.classes[where]
    plain = replace(
        batch,
        options=LossOptions(ignore_index=options.ignore_index, last_axis=options.last_axis),
        fused_gradient=batch.fused_plain_gradient,
    )
    outcome, gradient = run(fused, rows, Labels(classes, labels.kept[where]), plain)
    without = _behaviour(outcome, gradient, Labels(classes, labels.kept[where]), np.zeros(len(rows), bool))
    sound = ~(without.inf_loss | without.nan_loss | without.bad_gradient)
    worse = losses[where].isnan().numpy() & ~without.nan_loss
    fails[fails] = sound | worse
    return fails


def _but_bad(losses: torch.Tensor, bad: Bools) -> Floats:
    return np.where(bad, np.nan, losses.numpy())
