"""The four ways people write softmax and cross entropy, one signature each, as autograd sees them.

Logits are (rows, classes), or (N, classes, d) as ``F.cross_entropy`` takes them: the classes are dimension 1.
Every operation is executed in the dtype of ``x``. What a careful user adds by hand is added the same way to the
three handwritten forms: temperature divides the logits first; an ignored row gathers class 0 and its loss is
replaced by 0 with ``torch.where``; class weights w and smoothing eps go into the sum, as in ``F.cross_entropy``:
(1 - eps) w_t (-log p_t) + eps / classes * sum over c of w_c (-log p_c). ``fused`` leaves all that to it.

torch is imported inside: ``nanhunt op`` tells these forms without it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nanhunt.operations.cross_entropy.options import LossTerms, fused_terms

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Labels:
    """What the rows of one block should have been: class labels or probabilities, never both."""

    classes: torch.Tensor | None
    """int64, the logits' shape without classes, every one in 0..classes-1; 0 where ``kept`` is False."""
    kept: torch.Tensor
    """bool, of the same shape: False for rows that the loss leaves out."""
    probabilities: torch.Tensor | None = None
    """Of the logits' shape and dtype."""

    def by_row(self) -> Labels:
        """The same as (rows,) and (rows, classes)."""
        if self.kept.ndim == 1:
            return self
        classes, y = self.classes, self.probabilities
        return Labels(
            None if classes is None else classes.reshape(-1),
            self.kept.reshape(-1),
            None if y is None else by_row(y),
        )

    def only(self, row: int) -> Labels:
        """One row of labels by row, as a block of its own."""
        classes, y, at = self.classes, self.probabilities, slice(row, row + 1)
        return Labels(None if classes is None else classes[at], self.kept[at], None if y is None else y[at])


@dataclass(frozen=True, kw_only=True)
class Loss(LossTerms):
    """The terms that the user asks for, and what is known of the tensors."""

    weights: torch.Tensor | None = None
    """(classes,), in the dtype of the logits."""
    last_axis: bool = True
    """Whether the classes are the tensor's last dimension: float16 log_softmax sums those in half precision."""


class Outcome(NamedTuple):
    """Forward results of one implementation on one block."""

    probabilities: torch.Tensor
    """Of the logits' shape."""
    losses: torch.Tensor
    """Of the logits' shape without classes: row losses before the reduction, in the dtype of the logits."""


Implementation = Callable[["torch.Tensor", Labels, Loss], Outcome]
NegLog = Callable[["torch.Tensor | None"], "torch.Tensor"]
"""-log p at the given classes, a dimension of size 1; or at all of them for None."""
Times = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def naive(x: torch.Tensor, labels: Labels, options: Loss) -> Outcome:
    """e = exp(x); p = e / e.sum(1); loss_i = -log(p[i, t_i])."""
    import torch

    e = torch.exp(at_temperature(x, options))
    return _log_of(e / e.sum(1, keepdim=True), labels, options)


def log_of_softmax(x: torch.Tensor, labels: Labels, options: Loss) -> Outcome:
    """p = torch.softmax(x, 1); loss_i = -log(p[i, t_i])."""
    import torch

    return _log_of(torch.softmax(at_temperature(x, options), 1), labels, options)


def logsumexp(x: torch.Tensor, labels: Labels, options: Loss) -> Outcome:
    """m = max; loss_i = m + log(sum(exp(x - m))) - x_t."""
    import torch

    z = at_temperature(x, options)
    m = z.amax(1, keepdim=True)
    lse = m + torch.log(torch.exp(z - m).sum(1, keepdim=True))

    def neg_log(classes: torch.Tensor | None) -> torch.Tensor:
        return lse - (z if classes is None else z.gather(1, classes))

    with torch.no_grad():
        probabilities = torch.exp(z - lse)
    return Outcome(probabilities, by_hand(neg_log, labels, options, z.shape[1]))


def fused(x: torch.Tensor, labels: Labels, options: Loss) -> Outcome:
    """F.cross_entropy(x, t); its probabilities are those of ``torch.softmax``."""
    import torch

    z = at_temperature(x, options)
    with torch.no_grad():
        probabilities = torch.softmax(z, 1)
    return Outcome(probabilities, cross_entropy(z, labels, options))


def cross_entropy(z: torch.Tensor, labels: Labels, options: Loss) -> torch.Tensor:
    """Row losses of ``F.cross_entropy`` on logits that are divided already."""
    import torch.nn.functional as F

    target = labels.probabilities
    if labels.classes is not None:
        target = labels.classes.masked_fill(~labels.kept, options.ignore_index)
    assert target is not None
    lifted = not options.last_axis and z.ndim == 2
    if lifted:
        # PyTorch has another kernel for (N, C, d) than for (N, C); show it the layout it would have seen.
        z = z.T.unsqueeze(0)
        target = target.T.unsqueeze(0) if labels.classes is None else target.unsqueeze(0)
    losses = F.cross_entropy(
        z, target, options.weights, reduction="none", **fused_terms(options, labels.classes is not None)
    )
    return losses[0] if lifted else losses


def smoothed_parts(z: torch.Tensor, labels: Labels, options: Loss) -> tuple[torch.Tensor, torch.Tensor]:
    """What ``F.cross_entropy`` with smoothing adds up separately: -log p of the labels, and that of all classes.

    The second is not yet multiplied by eps / classes, so it overflows first (cross_entropy_loss_label_smoothing in
    ATen/native/LossNLL.cpp).
    """
    import torch.nn.functional as F

    assert labels.classes is not None
    neg_log = -F.log_softmax(z, 1)
    if options.weights is not None:
        neg_log = neg_log * by_class(options.weights, neg_log)
    of_labels = neg_log.gather(1, labels.classes.unsqueeze(1)).squeeze(1)
    return of_labels.where(labels.kept, 0.0), neg_log.sum(1).where(labels.kept, 0.0)


IMPLEMENTATIONS: dict[str, Implementation] = {
    "naive": naive,
    "log-of-softmax": log_of_softmax,
    "logsumexp": logsumexp,
    "fused": fused,
}


def at_temperature(x: torch.Tensor, options: Loss) -> torch.Tensor:
    """The logits divided by the temperature, of x's shape and dtype; x itself at 1, so that nothing is copied."""
    return x if options.temperature == 1.0 else x / options.temperature


def _log_of(p: torch.Tensor, labels: Labels, options: Loss) -> Outcome:
    import torch

    def neg_log(classes: torch.Tensor | None) -> torch.Tensor:
        # Gather first: log of the whole tensor has a NaN gradient wherever any p is 0.
        return -torch.log(p if classes is None else p.gather(1, classes))

    return Outcome(p.detach(), by_hand(neg_log, labels, options, p.shape[1]))


def by_hand(
    neg_log: NegLog, labels: Labels, options: Loss, classes: int, times: Times = operator.mul
) -> torch.Tensor:
    """Row losses as a user adds the options to -log p, shaped as the labels, in the dtype of ``neg_log``.

    ``times`` multiplies probabilities by -log p: the truth has its own answer to 0 times infinity.
    """
    import torch

    eps, weights = options.label_smoothing, options.weights
    if labels.probabilities is not None:
        y = labels.probabilities
        if eps:
            y = y * (1 - eps) + eps / classes
        if weights is not None:
            y = y * by_class(weights, y)
        return times(y, neg_log(None)).sum(1)
    assert labels.classes is not None
    losses = neg_log(labels.classes.unsqueeze(1)).squeeze(1)
    if weights is not None:
        losses = losses * weights[labels.classes]
    if eps:
        each = neg_log(None)
        each = each if weights is None else each * by_class(weights, each)
        losses = (1 - eps) * losses + eps / classes * each.sum(1)
    return torch.where(labels.kept, losses, torch.zeros_like(losses))


def shares(labels: Labels, options: Loss, like: torch.Tensor) -> torch.Tensor:
    """(rows, classes): what ``by_hand`` multiplies each class's -log p by, in the dtype of ``like`` of that shape."""
    import torch

    eps, classes = options.label_smoothing, like.shape[-1]
    weights = torch.ones(classes).to(like) if options.weights is None else options.weights.to(like)
    if labels.probabilities is not None:
        return (labels.probabilities.to(like) * (1 - eps) + eps / classes) * weights
    assert labels.classes is not None
    # 0 * NaN must not reach a loss that leaves the other weights out.
    others = weights * (eps / classes) if eps else torch.zeros_like(weights)
    at = labels.classes[:, None]
    return others.expand(like.shape).scatter_add(-1, at, (1 - eps) * weights[at])


def by_row(values: torch.Tensor) -> torch.Tensor:
    """Values by class, (rows, classes) or (N, classes, d), as (rows, classes)."""
    return values if values.ndim == 2 else values.movedim(1, -1).reshape(-1, values.shape[1])


def by_class(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Weights (classes,), shaped to be multiplied with values by class."""
    return weights if values.ndim == 2 else weights[:, None]
