"""Runs the four implementations forward and backward on a block of rows and says what each row did.

Nothing here is predicted: exps, sums, losses and gradients are the ones that PyTorch computes in the dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from nanhunt.dtypes.convert import Array, to_torch, torch_dtype
from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.operations.cross_entropy.facts import BLANK_FROM, Bools, RowBehaviour, RowFacts
from nanhunt.operations.cross_entropy.forms import (
    IMPLEMENTATIONS,
    Implementation,
    Labels,
    Loss,
    at_temperature,
    by_row,
    fused,
    smoothed_parts,
)
from nanhunt.operations.cross_entropy.options import changes_terms
from nanhunt.operations.cross_entropy.truth import largest_outside, truth

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
    options: Loss
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
    uncast_truth: Floats | None
    """Truth of the logits as stored; None where nothing was cast."""
    added: dict[str, Floats]
    """By row, what ``F.cross_entropy`` adds up in the dtype, each on its own: "losses", or "labels" and "classes"."""


def confirm(block: Array, targets: RowTargets, batch: Batch) -> Confirmed:
    """Runs everything on stored values ``block``, (rows, classes) or (N, classes, d); rows are numbered N first."""
    stored = to_torch(block, batch.stored)
    x = cast(stored, batch.dtype)
    labels, bad = labels_of(x, targets, batch.options.temperature)
    given = targets.labels is not None or targets.probabilities is not None
    facts = _input_facts(by_row(_base(stored)), by_row(x), labels.by_row(), bad, targets, batch)
    _naive_facts(facts, x, batch, given)
    true = truth(by_row(x), labels.by_row(), batch.options)
    facts.by, losses, gradient = _run_each(x, labels, bad, batch)
    facts.half_reduction = _class_sum_overflow(x, batch)
    facts.options_at_fault = _options_at_fault(facts, x, labels, batch, given)
    if given:  # a label that we chose ourselves has no loss to judge
        _loss_facts(facts, by_row(x), labels.by_row(), losses, gradient, true, batch)
    uncast = None
    if batch.dtype != batch.stored:
        uncast = true_losses(stored, labels, bad, batch.options)
    added = _added(x, labels, losses["fused"], batch)
    return Confirmed(
        facts, {name: _but_bad(each.double(), bad) for name, each in losses.items()}, _but_bad(true, bad), uncast,
        {name: _but_bad(each.double(), bad) for name, each in added.items()},
    )  # fmt: skip


def _run_each(
    x: torch.Tensor, labels: Labels, bad: Bools, batch: Batch
) -> tuple[dict[str, RowBehaviour], dict[str, torch.Tensor], torch.Tensor]:
    """(what each implementation does, its row losses, the fused gradient).

    One after the other, as a single row of many classes may fill much of the memory.
    """
    by, losses, gradient = {}, {}, x
    for name, form in IMPLEMENTATIONS.items():
        ran = run(form, x, labels, batch)
        by[name], losses[name] = _behaviour(ran, labels.by_row(), bad), ran.losses
        gradient = ran.gradient if form is fused else gradient
        del ran
    return by, losses, gradient


def _added(
    x: torch.Tensor, labels: Labels, fused_losses: torch.Tensor, batch: Batch
) -> dict[str, torch.Tensor]:
    if labels.classes is None or not batch.options.label_smoothing:
        return {"losses": fused_losses}
    of_labels, of_classes = smoothed_parts(at_temperature(x, batch.options), labels, batch.options)
    return {"labels": of_labels, "classes": of_classes}


def cast(stored: torch.Tensor, dtype: str) -> torch.Tensor:
    """Stored logits as the loss sees them in ``dtype``; float8 upcast to float32 afterwards."""
    return _base(stored).to(torch_dtype(dtype)).to(torch_dtype(compute_format(dtype).name))


def _base(stored: torch.Tensor) -> torch.Tensor:
    """Stored values in a dtype that has arithmetic."""
    return stored.float() if stored.dtype.itemsize == 1 else stored


def labels_of(x: torch.Tensor, targets: RowTargets, temperature: float) -> tuple[Labels, Bools]:
    """(what the losses of logits x are given, which rows have an unusable label).

    Without targets each row's label is its least likely unmasked class at that temperature.
    """
    shape = (*x.shape[:1], *x.shape[2:])
    rows = math.prod(shape)
    nothing, everything = np.zeros(rows, bool), torch.ones(shape, dtype=torch.bool)
    if targets.probabilities is not None:
        return Labels(None, everything, _laid_out(targets.probabilities, x).to(x.dtype)), nothing
    if targets.labels is None:
        # A logit of +inf must still rank before the masked ones.
        z = _rising(x, temperature)
        worst = z.clamp(max=torch.finfo(x.dtype).max).masked_fill(z == -math.inf, math.inf).argmin(1)
        return Labels(worst, everything), nothing
    bad = nothing if targets.bad is None else targets.bad
    ignored = nothing if targets.ignored is None else targets.ignored
    kept = ~(bad | ignored)
    classes = torch.from_numpy(np.where(kept, targets.labels, 0)).reshape(shape)
    return Labels(classes, torch.from_numpy(kept).reshape(shape)), bad


def _rising(x: torch.Tensor, temperature: float) -> torch.Tensor:
    """Values that rise with the probability: those of x, which a temperature below 0 turns round."""
    return -x if temperature < 0 else x


def _laid_out(rows: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Values (rows, classes) in the shape of the logits x."""
    if x.ndim == 2:
        return rows
    return rows.reshape(x.shape[0], x.shape[2], x.shape[1]).movedim(-1, 1).contiguous()


@dataclass(frozen=True)
class Ran:
    """One implementation, run on a block."""

    probabilities: torch.Tensor
    """(rows, classes)"""
    losses: torch.Tensor
    """(rows,)"""
    gradient: torch.Tensor
    """(rows, classes): of the loss as reduced over the whole tensor."""


def run(implementation: Implementation, x: torch.Tensor, labels: Labels, batch: Batch) -> Ran:
    """Forward and backward, in the layout of the logits x."""
    leaf = x.detach().requires_grad_()
    outcome = implementation(leaf, labels, batch.options)
    upstream = batch.fused_gradient if implementation is fused else batch.hand_gradient
    gradient = gradient_of(outcome.losses, leaf, upstream)
    return Ran(by_row(outcome.probabilities), outcome.losses.detach().reshape(-1), by_row(gradient))


def gradient_of(losses: torch.Tensor, x: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """The gradient, of the shape of ``x``, when the reduction hands ``upstream`` (scalar or rows) to row losses.

    A weighted sum hands 1 * upstream back, which is exact. torch.autograd.grad takes ``upstream`` itself too, but
    then imports torch.fx's symbolic shapes, a third of a second.
    """
    (gradient,) = torch.autograd.grad((losses * upstream).sum(), x)
    return gradient


def _input_facts(
    stored: torch.Tensor, x: torch.Tensor, labels: Labels, bad: Bools, targets: RowTargets, batch: Batch
) -> RowFacts:
    base = _base(stored)
    false = np.zeros(len(x), bool)
    later: dict[str, Any] = {name: false.copy() for name in _FILLED_LATER}
    top, bottom = base.amax(-1), base.amin(-1)  # both are NaN where a row holds one
    even = (top == bottom) & top.isfinite() & (base.shape[-1] > 1)
    given = targets.labels is not None or labels.probabilities is not None
    casts = batch.dtype != batch.stored
    return RowFacts(
        nan_logit=top.isnan().numpy(),
        inf_logit=_where(~top.isfinite(), lambda rows: (base[rows] == math.inf).any(-1)),
        fully_masked=(top == -math.inf).numpy(),
        constant=even.numpy(),
        blank=(even & (top.abs() >= BLANK_FROM)).numpy(),
        cast_overflow=_cast_overflow(base, x, top, bottom, batch.dtype) if casts else false.copy(),
        bad_label=bad.copy(),
        ignored=false.copy() if targets.ignored is None else targets.ignored.copy(),
        masked_target=_masked_target(base, bottom, labels) if given else false.copy(),
        low_headroom=_low_headroom(x, batch),
        **later,
    )


_FILLED_LATER = (
    "exp_inf", "sum_inf", "sum_zero", "sum_subnormal", "zero_classes",
    "options_at_fault", "half_reduction", "loss_sum_inf", "mean_of_none", "collapsed", "absorbed", "vanished",
)  # fmt: skip


def _where(suspects: torch.Tensor, fact: Callable[[torch.Tensor], torch.Tensor]) -> Bools:
    """``fact`` of the suspect rows, False for the rest: a closer look costs only where it can say yes."""
    found = np.zeros(len(suspects), bool)
    if bool(suspects.any()):
        rows = suspects.nonzero()[:, 0]
        found[rows.numpy()] = fact(rows).numpy()
    return found


def _cast_overflow(
    base: torch.Tensor, x: torch.Tensor, top: torch.Tensor, bottom: torch.Tensor, dtype: str
) -> Bools:
    limit = FORMATS[dtype].overflow

    def beyond(rows: torch.Tensor) -> torch.Tensor:
        if not FORMATS[dtype].has_infinity:  # torch saturates; what lies halfway still rounds to the largest
            return ((base[rows].abs() > limit) & (base[rows].abs() != math.inf)).any(-1)
        return (x[rows].isinf() & base[rows].isfinite()).any(-1)

    # A float64 goes through float32 on its way to half precision, and may be rounded up to the limit there.
    near = min(limit * (1 - 2.0**-20), torch.finfo(base.dtype).max)
    return _where(~((top.abs() < near) & (bottom.abs() < near)), beyond)


def _masked_target(base: torch.Tensor, bottom: torch.Tensor, labels: Labels) -> Bools:
    def masked(rows: torch.Tensor) -> torch.Tensor:
        if labels.classes is None:
            assert labels.probabilities is not None
            return ((base[rows] == -math.inf) & (labels.probabilities[rows] > 0)).any(-1)
        at_label = base[rows].gather(-1, labels.classes[rows, None])[:, 0]
        return (at_label == -math.inf) & labels.kept[rows]

    return _where(~bottom.isfinite(), masked)


def _low_headroom(x: torch.Tensor, batch: Batch) -> Bools:
    limit, largest = compute_format(batch.dtype).exp_limit, FORMATS[batch.dtype].max
    highest, lowest = x.amax(-1), x.amin(-1)
    top = (highest if batch.options.temperature > 0 else lowest).double() / batch.options.temperature

    def near(rows: torch.Tensor) -> torch.Tensor:
        z = at_temperature(x[rows], batch.options).amax(-1).double()
        size = x[rows].abs().masked_fill(x[rows] == -math.inf, 0.0).amax(-1).double()
        return ((z >= 0.9 * limit) & (z <= limit)) | ((size >= 0.9 * largest) & (size <= largest))

    # Far from both limits, whatever the rounding of the temperature's division.
    far = (top < 0.89 * limit) & (highest.double() < 0.89 * largest) & (lowest.double() > -0.89 * largest)
    return _where(~far, near)


def _naive_facts(facts: RowFacts, x: torch.Tensor, batch: Batch, given: bool) -> None:
    laid_out = at_temperature(x, batch.options)
    exps = torch.exp(laid_out)
    z, e, total = by_row(laid_out), by_row(exps), exps.sum(1).reshape(-1)
    # A sum that is finite has no infinite term.
    exp_inf = torch.from_numpy(_where(~total.isfinite(), lambda rows: (e[rows] == math.inf).any(-1)))
    facts.exp_inf = exp_inf.numpy()
    facts.sum_inf = ((total == math.inf) & ~exp_inf).numpy()
    facts.sum_zero = (total == 0).numpy()
    facts.sum_subnormal = ((total > 0) & (total < torch.finfo(x.dtype).smallest_normal)).numpy()
    if not given:
        facts.zero_classes = ((e / total[:, None] == 0) & (z != -math.inf)).any(-1).numpy()


def _behaviour(ran: Ran, labels: Labels, bad: Bools) -> RowBehaviour:
    p, losses, gradient = ran.probabilities, ran.losses, ran.gradient
    # A finite sum has no term that is not finite; a sum that is not may have overflowed by itself.
    broken = _where(~gradient.sum(-1).isfinite(), lambda rows: ~gradient[rows].isfinite().all(-1))
    return RowBehaviour(
        nan_probability=p.sum(-1).isnan().numpy(),
        zero_target_probability=_zero_target(p, labels).numpy(),
        inf_loss=losses.isinf().numpy() & ~bad,
        nan_loss=losses.isnan().numpy() & ~bad,
        bad_gradient=broken & ~bad,
    )


def _zero_target(p: torch.Tensor, labels: Labels) -> torch.Tensor:
    if labels.classes is None:
        assert labels.probabilities is not None
        return ((p == 0) & (labels.probabilities > 0)).any(-1)
    return (p.gather(-1, labels.classes[:, None])[:, 0] == 0) & labels.kept


def _loss_facts(
    facts: RowFacts, x: torch.Tensor, labels: Labels, losses: dict[str, torch.Tensor], gradient: torch.Tensor,
    true: torch.Tensor, batch: Batch,
) -> None:  # fmt: skip
    facts.absorbed = (_wrong(losses["logsumexp"], true, x) & ~_wrong(losses["fused"], true, x)).numpy()
    if labels.classes is None:
        return
    zero_loss = (losses["fused"] == 0) & (true != 0) & labels.kept
    at_label = gradient.gather(-1, labels.classes[:, None])[:, 0]
    facts.collapsed = (zero_loss & (at_label == 0)).numpy()
    facts.vanished = _vanished(x, labels, gradient, batch.options)


def _vanished(x: torch.Tensor, labels: Labels, gradient: torch.Tensor, options: Loss) -> Bools:
    classes = labels.classes
    assert classes is not None
    # Outside the label, entries are g p >= 0 (less the smoothing), so most rows show one by their maximum.
    at_label = gradient.gather(-1, classes[:, None])[:, 0]
    suspects = labels.kept & ~(gradient.amax(-1) > at_label.clamp_min(0.0))

    def silent(rows: torch.Tensor) -> torch.Tensor:
        label = classes[rows, None]
        nothing = (gradient[rows].scatter(-1, label, 0.0) == 0).all(-1)
        return nothing & (largest_outside(x[rows], classes[rows], options) != 0)

    return _where(suspects, silent)


def rounding_bound(loss: float, dtype: torch.dtype, classes: int) -> float:
    """How far from ``loss`` one that is computed in ``dtype`` may be: see LOSS_BOUND."""
    return LOSS_BOUND * torch.finfo(dtype).eps / 2 * max(1.0, abs(loss), math.log(classes))


def _wrong(losses: torch.Tensor, true: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    floor = max(1.0, math.log(x.shape[-1]))
    bound = LOSS_BOUND * torch.finfo(x.dtype).eps / 2 * true.abs().clamp_min(floor)
    losses = losses.double()
    return ~((losses - true).abs() <= bound) & (losses != true)


def _class_sum_overflow(x: torch.Tensor, batch: Batch) -> Bools:
    if x.dtype != torch.float16 or x.ndim > 2:
        return np.zeros(math.prod(x.shape) // x.shape[1], bool)
    z = at_temperature(x, batch.options)
    return (F.log_softmax(z, -1).amax(-1).isinf() & z.amax(-1).isfinite()).numpy()


def _options_at_fault(facts: RowFacts, x: torch.Tensor, labels: Labels, batch: Batch, given: bool) -> Bools:
    options, now = batch.options, facts.by["fused"]
    asked = changes_terms(options) or options.weights is not None
    nothing = np.zeros_like(facts.bad_label)
    if not now.fails.any() or not (asked or labels.probabilities is not None):
        return nothing
    likeliest = Labels(_rising(x, options.temperature).argmax(1), labels.kept)
    if not given:  # the label we chose is the least likely: what fails with the likeliest fails with any
        now = _behaviour(run(fused, x, likeliest, batch), likeliest.by_row(), nothing)
    plain = replace(
        batch,
        options=Loss(ignore_index=options.ignore_index, last_axis=options.last_axis),
        fused_gradient=batch.fused_plain_gradient,
    )
    usual = labels if given and labels.classes is not None else likeliest
    without = _behaviour(run(fused, x, usual, plain), usual.by_row(), nothing)
    at_fault: Bools = now.fails & (~without.fails | (now.nan_loss & ~without.nan_loss))
    return at_fault


def true_losses(stored: torch.Tensor, labels: Labels, bad: Bools, options: Loss) -> Floats:
    """Row losses of logits as stored, in exact arithmetic, float64 (rows,); NaN for rows with a bad label."""
    return _but_bad(truth(by_row(_base(stored)), labels.by_row(), options), bad)


def _but_bad(losses: torch.Tensor, bad: Bools) -> Floats:
    return np.where(bad, np.nan, losses.reshape(-1).numpy())
