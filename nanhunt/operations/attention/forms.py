"""Ways of writing attention, and its truth.

With query (heads, L, D), key (heads, S, D), value (heads, S, Dv) and a mask that is broadcast to (heads, L, S), each
gives (heads, L, Dv). Key and value are repeated to the heads that share them before they come here. Scores
(heads, L, S) stand for query and key where those are not there: they are scaled already, and -inf in them is a mask.
Without a value their output is the weights, (heads, L, S).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container
from typing import TYPE_CHECKING, Any

from nanhunt.operations.attention.options import AttentionOptions

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Tensors


def by_scores(names: Container[str]) -> bool:
    """Whether the scores are judged as they are, because there is no query and key that they come from."""
    return not ("query" in names and "key" in names)


def inputs(names: Container[str]) -> list[str]:
    """The roles that take part, but for the mask."""
    roles = ("scores", "value") if by_scores(names) else ("query", "key", "value")
    return [name for name in roles if name in names]


def lengths(t: Tensors) -> tuple[int, int]:
    """Queries and keys: L, S."""
    if by_scores(t):
        return t["scores"].shape[-2], t["scores"].shape[-1]
    return t["query"].shape[-2], t["key"].shape[-2]


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
        lower = torch.ones(lengths(t), dtype=torch.bool).tril()
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


def scaled(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """The scores before the mask: given, or the product times its scale, capped."""
    return t["scores"] if by_scores(t) else capped(product(t) * scale_of(t, options), options)


def capped(scores: torch.Tensor, options: AttentionOptions) -> torch.Tensor:
    """softcap * tanh(scores / softcap) (Gemma 2, arXiv:2408.00118, section 2); without a softcap the scores."""
    return options.softcap * (scores / options.softcap).tanh() if options.softcap else scores


def bad(role: str, values: torch.Tensor) -> torch.Tensor:
    """Where a number is not finite; -inf is legal in scores."""
    return values.isnan() | values.isposinf() if role == "scores" else ~values.isfinite()


def _output(weights: torch.Tensor, t: Tensors) -> torch.Tensor:
    return weights @ _values(t) if "value" in t or not by_scores(t) else weights


def naive(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """softmax(q @ k.mT * scale + mask) @ v: the product is formed before it is scaled."""
    return _output(masked(scaled(t, options), t, options, -math.inf).softmax(-1), t)


def scale_first(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """softmax((q * scale) @ k.mT + mask) @ v."""
    return _output(_true_scores(t, options).softmax(-1), t)


def exp_by_hand(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """e = exp(scores); e / e.sum(-1) @ v."""
    e = masked(scaled(t, options), t, options, -math.inf).exp()
    return _output(e / e.sum(-1, keepdim=True), t)


def finite_mask(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """softmax(q @ k.mT * scale + mask) @ v with finfo.min where the mask has -inf: a masked row gets the mean of v."""
    import torch

    lowest = torch.finfo(t[inputs(t)[0]].dtype).min
    added = {name: t[name].clamp(min=lowest) for name in additive(t)}
    t = {**t, **added}
    return _output(masked(scaled(t, options), t, options, lowest).softmax(-1), t)


def softcap_by_exp(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """softmax(cap * (exp(s) - exp(-s)) / (exp(s) + exp(-s)) + mask) @ v with s = q @ k.mT * scale / cap."""
    s = product(t) * scale_of(t, options) / options.softcap
    scores = options.softcap * (s.exp() - (-s).exp()) / (s.exp() + (-s).exp())
    return _output(masked(scores, t, options, -math.inf).softmax(-1), t)


def unused(problem: Any) -> Collection[str]:
    """Without a softcap nobody spells one with exp."""
    return () if problem.options.softcap else ("softcap-by-exp",)


def additive(t: Tensors) -> list[str]:
    """The tensors in which -inf says that a key takes no part: a float mask, scores that have one in them."""
    found = ["scores"] if by_scores(t) else []
    return [*found, "attn_mask"] if "attn_mask" in t and t["attn_mask"].is_floating_point() else found


def fused_call(problem: Any) -> str:
    """Scores that are capped by hand go in as its mask: it has no softcap of its own."""
    call = "F.scaled_dot_product_attention"
    return f"{call} with the capped scores as its mask" if problem.options.softcap else call


def fused(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """F.scaled_dot_product_attention(q, k, v, mask); scores alone, or capped, are its mask beside q and k of 0."""
    import torch.nn.functional as F

    if by_scores(t) or options.softcap:
        return _fused_of_scores(_true_scores(t, options), t)
    mask, keep = t.get("attn_mask"), allowed(t, options)
    if mask is None or not mask.is_floating_point():
        mask = keep
    elif keep is not None:
        mask = mask.masked_fill(~keep, -math.inf)
    # A fourth axis, as models have it: PyTorch picks its kernel by that.
    q, k, v = t["query"][None], t["key"][None], _values(t)[None]
    mask = None if mask is None else mask.expand(q.shape[1], q.shape[2], k.shape[2])[None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=options.scale or None)[0]


def _fused_of_scores(scores: torch.Tensor, t: Tensors) -> torch.Tensor:
    import torch
    import torch.nn.functional as F

    v = _values(t) if "value" in t or not by_scores(t) else None
    if v is None:
        v = torch.eye(scores.shape[-1], dtype=scores.dtype).expand(len(scores), -1, -1)
    q, k = scores.new_zeros(*scores.shape[:-1], 1), scores.new_zeros(*v.shape[:-1], 1)
    return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=scores[None])[0]


def _values(t: Tensors) -> torch.Tensor:
    """The values; where a file has none, the keys stand in: what goes wrong is decided by the scores."""
    return t["value"] if "value" in t else t["key"]


def _true_scores(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    if by_scores(t):
        return masked(t["scores"], t, options, -math.inf)
    scores = capped((t["query"] * scale_of(t, options)) @ t["key"].mT, options)
    return masked(scores, t, options, -math.inf)


def truth(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """The row maximum subtracted first, float64; a row that is masked everywhere is 0, as PyTorch's own has it."""
    import torch

    scores = _true_scores(t, options)
    empty = (scores == -math.inf).all(-1, keepdim=True)
    p = torch.where(empty, 0.0, scores.masked_fill(empty, 0.0).softmax(-1))
    return _output(p, t)


def scale(t: Tensors, true: torch.Tensor, options: AttentionOptions) -> torch.Tensor:
    """An error of a score is u times its terms, and moves the output by as much of the largest value."""
    if by_scores(t):  # exact as they are: what is rounded is the sum with a mask
        largest = t["value"].abs().amax((-1, -2))[..., None, None] if "value" in t else 1.0
        return (largest * (1 + t["scores"].amax(-1, keepdim=True).nan_to_num(0, 0, 0).abs())).expand(
            true.shape
        )
    terms = t["query"].abs().amax(-1, keepdim=True) * t["key"].abs().amax((-1, -2))[..., None, None]
    largest = _values(t).abs().amax((-1, -2))[..., None, None]
    return largest * (1 + terms * math.sqrt(t["query"].shape[-1]))


def size(t: Tensors, true: torch.Tensor, options: AttentionOptions) -> torch.Tensor:
    """An output is a mean of values: it is measured by the largest of its head, 1 where weights are the output."""
    if by_scores(t) and "value" not in t:
        return true.new_ones(()).expand(true.shape)
    return _values(t).abs().amax((-1, -2))[..., None, None].expand(true.shape)
