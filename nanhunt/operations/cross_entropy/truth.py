"""The reference: cross entropy in float64, with the row maximum left out of the sum and added with log1p; its gradient.

Near p = 1 a plain float64 log_softmax rounds 1 + r to 1 and loses the loss; log1p(r) keeps it
(Blanchard, Higham & Higham, IMA J. Numer. Anal. 41(4), 2021, doi 10.1093/imanum/draa038).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from nanhunt.operations.cross_entropy.forms import Labels, Loss, by_hand, shares


def truth(x: torch.Tensor, labels: Labels, options: Loss) -> torch.Tensor:
    """Row losses, float64, of logits x in exact arithmetic, shaped as in ``forms``; 0 for rows that are left out."""
    z = x.double() / options.temperature
    top, where = z.max(1, keepdim=True)
    rest = (z - top).exp_().scatter_(1, where, 0.0)
    log_sum = torch.log1p(rest.sum(1, keepdim=True))

    def neg_log(classes: torch.Tensor | None) -> torch.Tensor:
        picked = z if classes is None else z.gather(1, classes)
        return (top - picked) + log_sum

    weights = None if options.weights is None else options.weights.double()
    if labels.probabilities is not None:
        labels = replace(labels, probabilities=labels.probabilities.double())
    return by_hand(neg_log, labels, replace(options, weights=weights), x.shape[1], _zero_times_infinity_is_0)


def largest_outside(x: torch.Tensor, classes: torch.Tensor, options: Loss) -> torch.Tensor:
    """The largest magnitude of a row loss's true gradient outside the label, float64 (rows,).

    d loss / d z_j = p_j sum_k c_k - c_j, with the ``shares`` c.
    """
    p = torch.softmax(x.double() / options.temperature, -1)
    share = shares(Labels(classes, torch.ones_like(classes, dtype=torch.bool)), options, p)
    gradient = torch.where(p == 0, 0.0, p * share.sum(-1, keepdim=True)) - share
    return gradient.scatter(-1, classes[:, None], 0.0).abs().amax(-1)


def _zero_times_infinity_is_0(y: torch.Tensor, neg_log: torch.Tensor) -> torch.Tensor:
    """In truth; a row that has no softmax has no loss either, whatever the weight."""
    return torch.where((y == 0) & ~neg_log.isnan(), 0.0, y * neg_log)


@dataclass(frozen=True)
class Question:
    """Rows and a loss on them. Its answer is computed in float64, in no dtype of the user's."""

    x: torch.Tensor
    """(rows, classes) float64: the values of the logits as they are given."""
    labels: Labels
    """Probabilities, if any, in float64."""
    options: Loss
    """Weights, if any, in float64."""
    reduction: str
    asks: str = "loss"
    """"loss", "softmax" or "log_softmax"."""
    half: bool = False
    """Whether the code runs in float16."""
    constant: torch.Tensor | None = None
    """bool (rows, classes): logits that were replaced by a number, and so have gradient 0."""
    empty_mean: bool = True
    """Whether a mean over nothing is 0 / 0; else it is 0."""

    @property
    def label_masked(self) -> torch.Tensor:
        """bool (rows,): rows whose own label has logit -inf."""
        if self.labels.classes is None:
            return torch.zeros(len(self.x), dtype=torch.bool)
        at_label = self.x.gather(-1, self.labels.classes[:, None])[:, 0]
        return (at_label == -math.inf) & self.labels.kept

    def leaving_out(self, rows: torch.Tensor) -> Question:
        """The same without the rows where the mask ``rows`` holds."""
        return replace(self, labels=replace(self.labels, kept=self.labels.kept & ~rows))

    def smoothed_over(self, classes: torch.Tensor) -> Question:
        """The same with the smoothing spread over ``classes`` only, bool (rows, classes)."""
        label, eps = self.labels.classes, self.options.label_smoothing
        assert label is not None
        y = eps * classes.double() / classes.sum(-1, keepdim=True)
        y.scatter_add_(-1, label[:, None], torch.full((len(y), 1), 1 - eps, dtype=torch.float64))
        # Still the user's mean over kept rows, not that over all rows that probabilities have.
        labels = replace(self.labels, probabilities=y)
        return replace(self, labels=labels, options=replace(self.options, label_smoothing=0.0))

    @cached_property
    def share(self) -> float:
        """What the reduction multiplies each row's loss by: 1, or 1 / N; NaN for a mean over nothing."""
        if self.reduction == "sum":
            return 1.0
        weights, classes, kept = self.options.weights, self.labels.classes, self.labels.kept
        total = (
            float(kept.sum()) if classes is None or weights is None else float(weights[classes[kept]].sum())
        )
        if total == 0:
            return math.nan if self.empty_mean else 1.0
        return 1.0 / total

    @cached_property
    def loss(self) -> float:
        """The loss."""
        rows = truth(self.x, self._as_judged, self.options)
        return float(rows[self.labels.kept].sum()) * self.share

    @property
    def _as_judged(self) -> Labels:
        """Probabilities alone where there are both: they hold the label's share."""
        labels = self.labels
        return labels if labels.probabilities is None else replace(labels, classes=None)

    @cached_property
    def wanted(self) -> torch.Tensor:
        """(rows, classes): w_k y_k, the weight of each class's -log p in the row's loss; 0 in rows left out."""
        return torch.where(self.labels.kept[:, None], shares(self._as_judged, self.options, self.x), 0.0)

    @cached_property
    def gradient(self) -> torch.Tensor:
        """(rows, classes): of the loss for the logits, (p_j sum_k w_k y_k - w_j y_j) / T, times the share.

        NaN where the row has no softmax (NaN, +inf, all -inf) and counts; 0 in rows that are left out.
        """
        p = torch.softmax(self.x / self.options.temperature, -1)
        pull = self.wanted
        rows = (p * pull.sum(-1, keepdim=True) - pull) * self.share / self.options.temperature
        return self._reaching(torch.where(self.labels.kept[:, None], rows, 0.0))

    def _reaching(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient if self.constant is None else gradient.masked_fill(self.constant, 0.0)

    @cached_property
    def scale(self) -> torch.Tensor:
        """(rows, 1): the size of a gradient whose label has probability 0: what an error is small against."""
        pull = self.wanted.abs().sum(-1, keepdim=True)
        return (pull * self.share / self.options.temperature).abs()

    @cached_property
    def output(self) -> torch.Tensor:
        """(rows, classes): the softmax, or its logarithm."""
        z = self.x / self.options.temperature
        return torch.log_softmax(z, -1) if self.asks == "log_softmax" else torch.softmax(z, -1)

    def output_gradient(self, upstream: torch.Tensor) -> torch.Tensor:
        """(rows, classes): what ``upstream``, of the same shape, becomes on its way back to the logits."""
        p = torch.softmax(self.x / self.options.temperature, -1)
        if self.asks == "log_softmax":
            rows = upstream - p * upstream.sum(-1, keepdim=True)
        else:
            rows = p * (upstream - (p * upstream).sum(-1, keepdim=True))
        return self._reaching(rows / self.options.temperature)
