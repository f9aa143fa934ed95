"""Ways of writing the clipped policy objective.

With the log-ratio d = log_probs - old_log_probs and r = exp(d), a token loses -min(r A, clip(r, 1 - low, 1 + high) A)
(Schulman et al. 2017, arXiv:1707.06347, eq. 7), plus beta times an estimate of the KL divergence from the reference
policy (k1, k2, k3 of Schulman, "Approximating KL Divergence", 2020). A dual clip c bounds the loss of A < 0 by -c A
(Ye et al. 2020, arXiv:1912.09729, eq. 5). A ratio of sequences is exp of the mean of d over the tokens that count
(GSPO, arXiv:2507.18071, eq. 7). The mean of sums over T is that of Dr. GRPO (arXiv:2503.20783). Log-probabilities and
mask are (groups, T), advantages (groups, T) or (groups, 1); one sequence is a group, or one token where there is no
axis of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from nanhunt.operations.ppo.options import PpoOptions

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Tensors

LIMIT = 20.0
"""Where people clamp the log-ratio: exp(20) is 4.9e8."""
LARGEST_EXPONENT = 709.0
"""exp of it is near the largest float64: the truth of a token beyond it is reported as that number."""


def kept(t: Tensors, options: PpoOptions) -> torch.Tensor:
    """Which tokens count, bool of the log-probabilities' shape."""
    import torch

    mask = t.get("mask")
    if mask is None:
        return torch.ones_like(t["log_probs"], dtype=torch.bool)
    return ~mask.bool() if options.mask_drops else mask.bool()


def log_ratio(t: Tensors) -> torch.Tensor:
    """New minus old."""
    return t["log_probs"] - t["old_log_probs"]


def reference_ratio(t: Tensors) -> torch.Tensor | None:
    """Reference minus new; None where there is no reference policy."""
    return t["ref_log_probs"] - t["log_probs"] if "ref_log_probs" in t else None


def penalty(k: torch.Tensor, options: PpoOptions) -> torch.Tensor:
    """The estimate of the KL divergence, from ref - new."""
    if options.kl == "k1":
        return -k
    return 0.5 * k.square() if options.kl == "k2" else k.exp() - k - 1


def clipped(ratio: torch.Tensor, t: Tensors, options: PpoOptions) -> torch.Tensor:
    """-min(r A, clip(r) A), r (groups, T) or (groups, 1); with a dual clip c no more than -c A where A < 0."""
    import torch

    a = t["advantages"]
    losses = -torch.min(ratio * a, ratio.clamp(1 - options.clip_low, 1 + options.clip_high) * a)
    if not options.clip_dual:
        return losses
    return torch.where(a < 0, torch.min(losses, -options.clip_dual * a), losses)


def per_level(d: torch.Tensor, t: Tensors, options: PpoOptions) -> torch.Tensor:
    """d itself, or its mean over the tokens of a sequence that count, (groups, 1)."""
    if options.level == "token":
        return d
    mask = kept(t, options).to(d.dtype)
    return (d * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)


def aggregated(losses: torch.Tensor, t: Tensors, options: PpoOptions) -> torch.Tensor:
    """(groups, T) losses as each token's part of the whole; (groups,) where a sequence is the unit."""
    mask = kept(t, options).to(losses.dtype)
    weighted = losses * mask
    if options.level == "sequence":
        return weighted.sum(-1) / mask.sum(-1).clamp(min=1)
    if options.aggregation == "seq-mean-token-mean" and losses.dim() > 1:
        return weighted / mask.sum(-1, keepdim=True).clamp(min=1)
    if options.aggregation == "seq-mean-token-sum-norm" and losses.dim() > 1:
        return weighted / losses.shape[-1]
    return weighted


def _with_penalty(losses: torch.Tensor, k: torch.Tensor | None, options: PpoOptions) -> torch.Tensor:
    return losses if k is None or options.kl == "none" else losses + options.beta * penalty(k, options)


def naive(t: Tensors, options: PpoOptions) -> torch.Tensor:
    """r = exp(new - old); -min(r * A, r.clamp(1 - low, 1 + high) * A) * mask: the mask comes after exp."""
    ratio = per_level(log_ratio(t), t, options).exp()
    losses = _with_penalty(clipped(ratio, t, options), reference_ratio(t), options)
    return aggregated(losses, t, options)


def _masked_first(
    t: Tensors, options: PpoOptions, change: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    count = kept(t, options)
    d, k = log_ratio(t).where(count, 0.0), reference_ratio(t)
    ratio = change(per_level(d, t, options)).exp()
    losses = _with_penalty(
        clipped(ratio, t, options), None if k is None else change(k.where(count, 0.0)), options
    )
    return aggregated(losses, t, options)


def masked_first(t: Tensors, options: PpoOptions) -> torch.Tensor:
    """d = where(mask, new - old, 0); then the same with r = exp(d)."""
    return _masked_first(t, options, lambda d: d)


def clamped(t: Tensors, options: PpoOptions) -> torch.Tensor:
    """d = where(mask, new - old, 0).clamp(-20, 20), ref - new alike: another objective where A < 0 and d > 20."""
    return _masked_first(t, options, lambda d: d.clamp(-LIMIT, LIMIT))


def fused(t: Tensors, options: PpoOptions) -> torch.Tensor:
    """float32; d = where(mask, new - old, 0), at most log(1 + high) where A >= 0, which is clipped there anyway."""
    wide = {name: each.float() if _is_narrow(each) else each for name, each in t.items()}
    return _exact(wide, options, math.inf)


def truth(t: Tensors, options: PpoOptions) -> torch.Tensor:
    """The same in float64; the exponent ends at 709, so that what no format holds is at least huge."""
    return _exact(t, options, LARGEST_EXPONENT)


def _is_narrow(each: torch.Tensor) -> bool:
    return each.is_floating_point() and each.dtype.itemsize < 4


def _exact(t: Tensors, options: PpoOptions, largest: float) -> torch.Tensor:
    """The objective with every exponent bounded where the clip makes the value independent of it."""
    import torch

    count = kept(t, options)
    advantages = t["advantages"].expand(count.shape).where(count, 0.0)
    d = per_level(log_ratio(t).where(count, 0.0), t, options).clamp(max=largest)
    most = math.log(options.clip_dual) if options.clip_dual else math.inf
    bounded = torch.where(advantages >= 0, d.clamp(max=math.log1p(options.clip_high)), d.clamp(max=most))
    losses, k = clipped(bounded.exp(), {**t, "advantages": advantages}, options), reference_ratio(t)
    k = None if k is None else k.where(count, 0.0).clamp(max=largest)
    return aggregated(_with_penalty(losses, k, options), t, options)
