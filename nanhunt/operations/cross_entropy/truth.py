"""The reference: cross entropy in float64, with the row maximum left out of the sum and added with log1p.

Near p = 1 a plain float64 log_softmax rounds 1 + r to 1 and loses the loss; log1p(r) keeps it
(Blanchard, Higham & Higham, IMA J. Numer. Anal. 41(4), 2021, doi 10.1093/imanum/draa038).
"""

from __future__ import annotations

import torch

from nanhunt.operations.cross_entropy.forms import Labels, LossOptions, NegLog, by_class


def truth(x: torch.Tensor, labels: Labels, options: LossOptions) -> torch.Tensor:
    """Row losses, float64, of logits x in exact arithmetic, shaped as in ``forms``; 0 for rows that are left out."""
    z = x.double() / options.temperature
    top, where = z.max(1, keepdim=True)
    rest = torch.exp(z - top).scatter_(1, where, 0.0)
    log_sum = torch.log1p(rest.sum(1, keepdim=True))

    def neg_log(classes: torch.Tensor | None) -> torch.Tensor:
        picked = z if classes is None else z.gather(1, classes)
        return (top - picked) + log_sum

    if labels.probabilities is not None:
        return _soft(neg_log(None), labels.probabilities, options)
    return _hard(neg_log, labels, options)


def largest_outside(x: torch.Tensor, classes: torch.Tensor, options: LossOptions) -> torch.Tensor:
    """The largest magnitude of a row loss's true gradient outside the label, float64 (rows,).

    d loss / d z_j = p_j sum_k y_k w_k - y_j w_j, where the smoothed y_j is eps / classes outside the label.
    """
    eps, label = options.label_smoothing, classes[:, None]
    p = torch.softmax(x.double() / options.temperature, -1)
    weights = torch.ones(p.shape[-1]).double() if options.weights is None else options.weights.double()
    mass = (1 - eps) * weights[classes]
    pull = torch.zeros_like(weights)
    if eps:  # 0 * NaN must not reach a loss that leaves the other weights out
        mass, pull = mass + eps / len(weights) * weights.sum(), eps / len(weights) * weights
    gradient = torch.where(p == 0, 0.0, p * mass[:, None]) - pull
    return gradient.scatter(-1, label, 0.0).abs().amax(-1)


def _soft(neg_log: torch.Tensor, y: torch.Tensor, options: LossOptions) -> torch.Tensor:
    classes = neg_log.shape[1]
    y = y.double() * (1 - options.label_smoothing) + options.label_smoothing / classes
    if options.weights is not None:
        y = y * by_class(options.weights.double(), y)
    return torch.where(y == 0, 0.0, y * neg_log).sum(1)  # 0 * -inf is 0 in truth


def _hard(neg_log: NegLog, labels: Labels, options: LossOptions) -> torch.Tensor:
    assert labels.classes is not None
    eps = options.label_smoothing
    picked = neg_log(labels.classes.unsqueeze(1)).squeeze(1)
    weights = None if options.weights is None else options.weights.double()
    losses = picked if weights is None else picked * weights[labels.classes]
    if eps:
        each = neg_log(None) if weights is None else neg_log(None) * by_class(weights, neg_log(None))
        losses = (1 - eps) * losses + eps / each.shape[1] * each.sum(1)
    return torch.where(labels.kept, losses, 0.0)
