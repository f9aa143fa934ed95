"""How the tensors of attention are cut, and which of their numbers spell trouble."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.load.tensor import FLOATING
from nanhunt.operations.attention import forms
from nanhunt.operations.attention.options import AttentionOptions
from nanhunt.operations.operation import Block, Plan, Sliced

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Bools, Tensors


def plan(shapes: Mapping[str, tuple[int, ...]], options: AttentionOptions) -> Plan:
    """Groups are the heads of all sequences, units their queries.

    query (..., H, L, D), key (..., H or fewer, S, D), value (..., H or fewer, S, Dv), attn_mask broadcast to
    (..., H, L, S). Scores (..., H, L, S) stand for query and key where these are not there. Raises NanhuntError for
    shapes that F.scaled_dot_product_attention refuses as well, for scores beside a query without a key, and for a scale
    or softcap of scores.
    """
    if forms.by_scores(shapes):
        return _plan_of_scores(shapes, options)
    query, key = shapes["query"], shapes["key"]
    value = shapes.get("value", key)
    if min(map(len, (query, key, value))) < 2 or len(query) != len(key) or key[:-1] != value[:-1]:
        raise _unfit(shapes)
    if query[-1] != key[-1]:
        raise _unfit(shapes)
    groups, shared = _heads(shapes, query[:-2], key[:-2])
    sliced = {
        "query": Sliced((*groups, *query[-2:]), 2),
        "key": Sliced((*shared, *key[-2:]), 2),
        "value": Sliced((*shared, *value[-2:]), 2),
    }
    if "attn_mask" in shapes:
        sliced["attn_mask"] = _sliced_mask(shapes, (*query[:-1], key[-2]), groups)
    if shapes.get("scores") == (*query[:-1], key[-2]):
        sliced["scores"] = Sliced((*groups, query[-2], key[-2]), 2)
    return Plan(groups, (query[-2],), sliced)


def _plan_of_scores(shapes: Mapping[str, tuple[int, ...]], options: AttentionOptions) -> Plan:
    for name, given in (("scale", options.scale), ("softcap", options.softcap)):
        if not given:
            continue
        raise NanhuntError(
            f"--{name} {given:g} applies to q @ k.mT, and scores are taken as they enter the softmax.",
            "Leave it out, or name the query and the key: --role query=NAME --role key=NAME.",
        )
    scores = shapes["scores"]
    value = shapes.get("value", (*scores[:-2], scores[-1], 1))
    if "query" in shapes or len(value) != len(scores) or value[-2] != scores[-1]:
        raise _unfit(shapes)
    groups, shared = _heads(shapes, scores[:-2], value[:-2])
    sliced = {"scores": Sliced((*groups, *scores[-2:]), 2)}
    if "value" in shapes:
        sliced["value"] = Sliced((*shared, *value[-2:]), 2)
    if "attn_mask" in shapes:
        sliced["attn_mask"] = _sliced_mask(shapes, scores, groups)
    return Plan(groups, (scores[-2],), sliced)


def _heads(
    shapes: Mapping[str, tuple[int, ...]], many: tuple[int, ...], few: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The groups, and how a tensor of fewer heads, each shared by several of them, is seen to be repeated."""
    if not many:
        return (), ()
    if many[:-1] != few[:-1] or few[-1] == 0 or many[-1] % few[-1]:
        raise _unfit(shapes)
    return (*few, many[-1] // few[-1]), (*few, 1)


def _sliced_mask(
    shapes: Mapping[str, tuple[int, ...]], scores: tuple[int, ...], groups: tuple[int, ...]
) -> Sliced:
    mask, (length, keys) = shapes["attn_mask"], scores[-2:]
    if mask[-2:] not in ((length, keys), (1, keys)) or len(mask) > len(scores):
        raise _unfit(shapes)
    lead = mask[:-2]
    if any(size not in (1, want) for size, want in zip(reversed(lead), reversed(scores[:-2]), strict=False)):
        raise _unfit(shapes)
    if not lead:
        return Sliced(mask, 2)
    heads = lead[-1]
    split = groups[-2:] if heads > 1 else (1, 1)
    return Sliced((*lead[:-1], *split, *mask[-2:]), 2)


def assumes(problem: Any) -> str:
    """What scores are taken for, or why they are left aside; how a mask was read."""
    return "; ".join(filter(None, (_assumed_of_scores(problem), _assumed_of_mask(problem))))


def _assumed_of_scores(problem: Any) -> str:
    if "scores" not in problem.tensors:
        return ""
    if forms.by_scores(problem.tensors):
        return "scores are taken as they enter the softmax: scaled already, -inf where a key takes no part"
    return "the scores are left aside: they are computed from query and key"


def _assumed_of_mask(problem: Any) -> str:
    """Floats are legal whatever they are, as those of ALiBi: PyTorch adds them, even a 1 that was to keep keys."""
    mask = problem.tensors.get("attn_mask")
    if mask is None:
        return ""
    if mask.dtype in FLOATING:
        return (
            f"the mask is {mask.dtype}, which PyTorch adds to the scores: 0 keeps a key, -inf leaves it out"
        )
    if problem.options.mask_drops:
        return "mask: 1 (True) leaves a key out; --no-mask-drops reads it the other way"
    return "mask: 1 (True) keeps a key; --mask-drops reads it the other way"


def _unfit(shapes: Mapping[str, tuple[int, ...]]) -> NanhuntError:
    told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    return NanhuntError(
        f"--op attention: these shapes do not fit: {told}.",
        "query (..., heads, L, D), key and value (..., heads, S, D), attn_mask broadcast to (..., heads, L, S); "
        "or scores (..., heads, L, S) without query and key.",
    )


def isolate(t: Tensors, options: AttentionOptions, row: int) -> tuple[Tensors, AttentionOptions]:
    """One query of one head; causality becomes a mask, since the query is then the first one."""
    keep = forms.allowed(t, options)
    main = forms.inputs(t)[0]
    one = {**t, main: t[main][:, row : row + 1]}
    mask = t.get("attn_mask")
    if mask is not None and mask.is_floating_point():
        mask = mask.expand(mask.shape[0], forms.lengths(t)[0], mask.shape[-1])[:, row : row + 1]
        one["attn_mask"] = mask if keep is None else mask.masked_fill(~keep[..., row : row + 1, :], -math.inf)
    elif keep is not None:
        keep = keep.expand(1, forms.lengths(t)[0], keep.shape[-1])
        one["attn_mask"] = keep[:, row : row + 1]
    return one, replace(options, causal=False, mask_drops=False)


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, empty, drowned, mask_cast, product_overflow: each bool (rows,)."""
    import torch

    t, options = block.cast, block.options
    given = forms.scaled(t, options)
    product = torch.zeros_like(given) if forms.by_scores(t) else forms.product(t)
    scores = forms.masked(given, t, options, -math.inf)
    keep = forms.allowed(t, options)
    seen = torch.ones_like(scores, dtype=torch.bool) if keep is None else keep.expand(scores.shape)
    stored_bad = _input_bad(block.stored) | _mask_bad(block.stored, rows_like=scores)
    empty = (scores == -math.inf).all(-1) & ~(product == -math.inf).any(-1)
    found = {
        "not_finite": stored_bad,
        "cast_overflow": _input_bad(t) & ~stored_bad,
        "empty": empty,
        "drowned": _drowned(t, seen) & ~empty,
        "mask_cast": _mask_overflows(block, scores),
        "product_overflow": (product.isinf() & seen).any(-1),
    }
    return {name: each.expand(scores.shape[:-1]).reshape(-1).numpy() for name, each in found.items()}


def _input_bad(t: Tensors) -> torch.Tensor:
    """Rows that a bad number has a part in: its own of the query or the scores, all of key and value."""
    main, *shared = forms.inputs(t)
    rows = forms.bad(main, t[main]).any(-1)
    for name in shared:
        rows = rows | forms.bad(name, t[name]).any(-1).any(-1)[:, None]
    return rows


def _mask_bad(t: Tensors, rows_like: torch.Tensor) -> torch.Tensor:
    """Rows whose additive mask holds NaN or +inf."""
    import torch

    mask = t.get("attn_mask")
    if mask is None or not mask.is_floating_point():
        return torch.zeros(rows_like.shape[:-1], dtype=torch.bool)
    return (mask.isnan() | (mask == math.inf)).any(-1).expand(rows_like.shape[:-1])


DROWNED = -1e4
"""A finite mask entry from here down means "masked": BERT's -10000 is the smallest one in use."""


def _drowned(t: Tensors, seen: torch.Tensor) -> torch.Tensor:
    """Rows of which every key that a bool mask lets through has such a number added to its score."""
    import torch

    found = torch.zeros(seen.shape[:-1], dtype=torch.bool)
    for name in forms.additive(t):
        found = found | ((t[name] <= DROWNED) | ~seen).all(-1)
    return found


def _mask_overflows(block: Block, scores: torch.Tensor) -> torch.Tensor:
    """Rows whose additive mask, or scores with one in them, was finite somewhere and is -inf in the dtype."""
    import torch

    found = torch.zeros(scores.shape[:-1], dtype=torch.bool)
    for name in forms.additive(block.cast):
        found = found | (block.cast[name].isneginf() & block.stored[name].isfinite()).any(-1)
    return found
