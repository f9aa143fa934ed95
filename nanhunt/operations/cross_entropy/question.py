"""What a loss (or softmax) over some rows should be: its value and gradient in float64, which fixes must reach."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from nanhunt.operations.cross_entropy.forms import Labels, LossOptions
from nanhunt.operations.cross_entropy.truth import truth


@dataclass(frozen=True)
class Question:
    """Rows and a loss on them. Its answer is computed in float64, in no dtype of the user's."""

    x: torch.Tensor
    """(rows, classes) float64: the values of the logits as they are given."""
    labels: Labels
    """Probabilities, if any, in float64."""
    options: LossOptions
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
        eps, classes = self.options.label_smoothing, self.x.shape[-1]
        if self.labels.probabilities is not None:
            y = self.labels.probabilities * (1 - eps) + eps / classes
        else:
            assert self.labels.classes is not None
            y = torch.full_like(self.x, eps / classes)
            y.scatter_add_(-1, self.labels.classes[:, None], torch.full_like(y[:, :1], 1 - eps))
        if self.options.weights is not None:
            y = y * self.options.weights
        return torch.where(self.labels.kept[:, None], y, 0.0)

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
