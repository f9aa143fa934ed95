"""How the tensors of attention are cut, and which of their numbers spell trouble."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from nanhunt.errors import NanhuntError
from nanhunt.operations.attention import forms
from nanhunt.operations.attention.options import AttentionOptions
from nanhunt.operations.operation import Block, Plan, Sliced

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Bools, Tensors


def plan(shapes: Mapping[str, tuple[int, ...]], options: AttentionOptions) -> Plan:
    """Groups are the heads of all sequences, units their queries.

    query (..., H, L, D), key (..., H or fewer, S, D), value (..., H or fewer, S, Dv), attn_mask broadcast to
    (..., H, L, S). Raises NanhuntError for shapes that F.scaled_dot_product_attention refuses as well.
    """
    query, key = shapes["query"], shapes["key"]
    value = shapes.get("value", key)
    if min(map(len, (query, key, value))) < 2 or len(query) != len(key) or key[:-1] != value[:-1]:
        raise _unfit(shapes)
    if query[-1] != key[-1] or query[:-3] != key[:-3]:
        raise _unfit(shapes)
    heads, fewer = (query[-3], key[-3]) if len(query) > 2 else (1, 1)
    if fewer == 0 or heads % fewer:
        raise _unfit(shapes)
    lead = query[:-3]
    groups = (*lead, fewer, heads // fewer) if len(query) > 2 else ()
    shared = (*lead, fewer, 1) if len(query) > 2 else ()
    sliced = {
        "query": Sliced((*groups, *query[-2:]), 2),
        "key": Sliced((*shared, *key[-2:]), 2),
        "value": Sliced((*shared, *value[-2:]), 2),
    }
    if "attn_mask" in shapes:
        sliced["attn_mask"] = _sliced_mask(shapes, groups, heads // fewer)
    return Plan(groups, (query[-2],), sliced)


def _sliced_mask(shapes: Mapping[str, tuple[int, ...]], groups: tuple[int, ...], share: int) -> Sliced:
    mask, length, keys = shapes["attn_mask"], shapes["query"][-2], shapes["key"][-2]
    if mask[-2:] not in ((length, keys), (1, keys)) or len(mask) > len(shapes["query"]):
        raise _unfit(shapes)
    lead = mask[:-2]
    wanted = shapes["query"][: len(shapes["query"]) - 2]
    if any(size not in (1, want) for size, want in zip(reversed(lead), reversed(wanted), strict=False)):
        raise _unfit(shapes)
    if not lead:
        return Sliced(mask, 2)
    heads = lead[-1]
    split = (heads // share, share) if heads > 1 else (1, 1)
    return Sliced((*lead[:-1], *split, *mask[-2:]), 2)


def _unfit(shapes: Mapping[str, tuple[int, ...]]) -> NanhuntError:
    told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    return NanhuntError(
        f"--op attention: these shapes do not fit: {told}.",
        "query (..., heads, L, D), key and value (..., heads, S, D), attn_mask broadcast to (..., heads, L, S).",
    )


def isolate(t: Tensors, options: AttentionOptions, row: int) -> tuple[Tensors, AttentionOptions]:
    """One query of one head; causality becomes a mask, since the query is then the first one."""
    keep = forms.allowed(t, options)
    one = {**t, "query": t["query"][:, row : row + 1]}
    mask = t.get("attn_mask")
    if mask is not None and mask.is_floating_point():
        mask = mask.expand(mask.shape[0], t["query"].shape[1], mask.shape[-1])[:, row : row + 1]
        one["attn_mask"] = mask if keep is None else mask.masked_fill(~keep[..., row : row + 1, :], -math.inf)
    elif keep is not None:
        keep = keep.expand(1, t["query"].shape[1], keep.shape[-1])
        one["attn_mask"] = keep[:, row : row + 1]
    return one, replace(options, causal=False, mask_drops=False)


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, empty, mask_cast, product_overflow, exp_overflow: each bool (rows,)."""
    import torch

    t, options = block.cast, block.options
    product = forms.product(t)
    scores = forms.masked(product * forms.scale_of(t, options), t, options, -math.inf)
    keep = forms.allowed(t, options)
    seen = torch.ones_like(scores, dtype=torch.bool) if keep is None else keep.expand(scores.shape)
    inputs = [name for name in ("query", "key", "value") if name in t]

    def bad(tensors: Tensors) -> torch.Tensor:
        rows = ~tensors["query"].isfinite().all(-1)
        for name in inputs[1:]:
            rows = rows | ~tensors[name].isfinite().all(-1).all(-1)[:, None]
        return rows

    stored_bad = bad(block.stored) | _mask_bad(block.stored, rows_like=scores)
    found = {
        "not_finite": stored_bad,
        "cast_overflow": bad(t) & ~stored_bad,
        "empty": (scores == -math.inf).all(-1) & ~(product == -math.inf).any(-1),
        "mask_cast": _mask_overflows(block, scores),
        "product_overflow": (product.isinf() & seen).any(-1),
        "exp_overflow": (scores.exp().sum(-1) == math.inf),
    }
    return {name: each.expand(scores.shape[:-1]).reshape(-1).numpy() for name, each in found.items()}


def _mask_bad(t: Tensors, rows_like: torch.Tensor) -> torch.Tensor:
    """Rows whose additive mask holds NaN or +inf."""
    import torch

    mask = t.get("attn_mask")
    if mask is None or not mask.is_floating_point():
        return torch.zeros(rows_like.shape[:-1], dtype=torch.bool)
    return (mask.isnan() | (mask == math.inf)).any(-1).expand(rows_like.shape[:-1])


def _mask_overflows(block: Block, scores: torch.Tensor) -> torch.Tensor:
    """Rows whose additive mask was finite somewhere and is infinite in the dtype."""
    import torch

    mask, stored = block.cast.get("attn_mask"), block.stored.get("attn_mask")
    if mask is None or stored is None or not mask.is_floating_point():
        return torch.zeros(scores.shape[:-1], dtype=torch.bool)
    return (mask.isinf() & stored.isfinite()).any(-1).expand(scores.shape[:-1])
