"""Ways of writing attention, and its truth.

With query (heads, L, D), key (heads, S, D), value (heads, S, Dv) and a mask that is broadcast to (heads, L, S), each
gives (heads, L, Dv). Key and value are repeated to the heads that share them before they come here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nanhunt.operations.attention.options import AttentionOptions

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Tensors


def scale_of(t: Tensors, options: AttentionOptions) -> float:
    """What the product is multiplied by: --scale, or 1 / sqrt(D)."""
    return options.scale or 1.0 / math.sqrt(t["query"].shape[-1])


def allowed(t: Tensors, options: AttentionOptions) -> torch.Tensor | None:
    """Where a bool mask and causality let a key take part, bool (..., L, S); None: everywhere."""
    import torch

    mask = t.get("attn_mask")
    found = None
    if mask is not None and not mask.is_floating_point():
        found = ~mask.bool() if options.mask_drops else mask.bool()
    if options.causal:
        lower = torch.ones(t["query"].shape[-2], t["key"].shape[-2], dtype=torch.bool).tril()
        found = lower if found is None else found & lower
    return found


def masked(scores: torch.Tensor, t: Tensors, options: AttentionOptions, fill: float) -> torch.Tensor:
    """Scores plus the mask: a float one is added, a bool one fills with ``fill``."""
    mask, keep = t.get("attn_mask"), allowed(t, options)
    if mask is not None and mask.is_floating_point():
        scores = scores + mask
    return scores if keep is None else scores.masked_fill(~keep, fill)


def product(t: Tensors) -> torch.Tensor:
    """q @ k.mT, not scaled: (heads, L, S)."""
    return t["query"] @ t["key"].mT


def naive(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """softmax(q @ k.mT * scale + mask) @ v: the product is formed before it is scaled."""
    scores = masked(product(t) * scale_of(t, options), t, options, -math.inf)
    return scores.softmax(-1) @ _values(t)


def scale_first(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """softmax((q * scale) @ k.mT + mask) @ v."""
    scores = masked((t["query"] * scale_of(t, options)) @ t["key"].mT, t, options, -math.inf)
    return scores.softmax(-1) @ _values(t)


def exp_by_hand(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """e = exp(scores); e / e.sum(-1) @ v."""
    e = masked(product(t) * scale_of(t, options), t, options, -math.inf).exp()
    return (e / e.sum(-1, keepdim=True)) @ _values(t)


def finite_mask(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """softmax(q @ k.mT * scale + mask) @ v with finfo.min where the mask has -inf: a masked row gets the mean of v."""
    import torch

    lowest = torch.finfo(t["query"].dtype).min
    mask = t.get("attn_mask")
    if mask is not None and mask.is_floating_point():
        t = {**t, "attn_mask": mask.clamp(min=lowest)}
    scores = masked(product(t) * scale_of(t, options), t, options, lowest)
    return scores.softmax(-1) @ _values(t)


def fused(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """F.scaled_dot_product_attention(q, k, v, mask)."""
    import torch.nn.functional as F

    mask, keep = t.get("attn_mask"), allowed(t, options)
    if mask is None or not mask.is_floating_point():
        mask = keep
    elif keep is not None:
        mask = mask.masked_fill(~keep, -math.inf)
    # A fourth axis, as models have it: PyTorch picks its kernel by that.
    q, k, v = t["query"][None], t["key"][None], _values(t)[None]
    mask = None if mask is None else mask.expand(q.shape[1], q.shape[2], k.shape[2])[None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=options.scale or None)[0]


def _values(t: Tensors) -> torch.Tensor:
    """The values; where a file has none, the keys stand in: what goes wrong is decided by the scores."""
    return t.get("value", t["key"])


def _true_scores(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    return masked((t["query"] * scale_of(t, options)) @ t["key"].mT, t, options, -math.inf)


def truth(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """The row maximum subtracted first, float64; a row that is masked everywhere is 0, as PyTorch's own has it."""
    import torch

    scores = _true_scores(t, options)
    empty = (scores == -math.inf).all(-1, keepdim=True)
    p = torch.where(empty, 0.0, scores.masked_fill(empty, 0.0).softmax(-1))
    return p @ _values(t)


def scale(t: Tensors, true: torch.Tensor) -> torch.Tensor:
    """An error of a score is u times its terms, and moves the output by as much of the largest value."""
    terms = t["query"].abs().amax(-1, keepdim=True) * t["key"].abs().amax((-1, -2))[..., None, None]
    largest = _values(t).abs().amax((-1, -2))[..., None, None]
    return largest * (1 + terms * math.sqrt(t["query"].shape[-1]))
