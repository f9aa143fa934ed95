"""Scaled dot-product attention: softmax(q k^T / sqrt(d) + mask) v, a row of it for every query."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nanhunt.dtypes.formats import FORMATS
from nanhunt.errors import NanhuntError
from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING, INTEGER
from nanhunt.operations.attention_options import AttentionOptions
from nanhunt.operations.fix import Fix
from nanhunt.operations.operation import Block, Facts, Operation, Plan, Sliced, Unit
from nanhunt.operations.rule import Rule
from nanhunt.results.report import Severity

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Behaviour, Bools, Tensors


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


def _scale(t: Tensors, options: AttentionOptions) -> float:
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


def _masked(scores: torch.Tensor, t: Tensors, options: AttentionOptions, fill: float) -> torch.Tensor:
    """Scores plus the mask: a float one is added, a bool one fills with ``fill``."""
    mask, keep = t.get("attn_mask"), allowed(t, options)
    if mask is not None and mask.is_floating_point():
        scores = scores + mask
    return scores if keep is None else scores.masked_fill(~keep, fill)


def _product(t: Tensors) -> torch.Tensor:
    return t["query"] @ t["key"].mT


def naive(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """softmax(q @ k.mT * scale + mask) @ v: the product is formed before it is scaled."""
    scores = _masked(_product(t) * _scale(t, options), t, options, -math.inf)
    return scores.softmax(-1) @ _values(t)


def scale_first(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """softmax((q * scale) @ k.mT + mask) @ v."""
    scores = _masked((t["query"] * _scale(t, options)) @ t["key"].mT, t, options, -math.inf)
    return scores.softmax(-1) @ _values(t)


def exp_by_hand(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """e = exp(scores); e / e.sum(-1) @ v."""
    e = _masked(_product(t) * _scale(t, options), t, options, -math.inf).exp()
    return (e / e.sum(-1, keepdim=True)) @ _values(t)


def finite_mask(t: Tensors, options: AttentionOptions) -> torch.Tensor:
    """softmax(q @ k.mT * scale + mask) @ v with finfo.min where the mask has -inf: a masked row gets the mean of v."""
    import torch

    lowest = torch.finfo(t["query"].dtype).min
    mask = t.get("attn_mask")
    if mask is not None and mask.is_floating_point():
        t = {**t, "attn_mask": mask.clamp(min=lowest)}
    scores = _masked(_product(t) * _scale(t, options), t, options, lowest)
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
    return _masked((t["query"] * _scale(t, options)) @ t["key"].mT, t, options, -math.inf)


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


def isolate(t: Tensors, options: AttentionOptions, row: int) -> tuple[Tensors, AttentionOptions]:
    """One query of one head; causality becomes a mask, since the query is then the first one."""
    keep = allowed(t, options)
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
    product = _product(t)
    scores = _masked(product * _scale(t, options), t, options, -math.inf)
    keep = allowed(t, options)
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


def slots(problem: Any) -> Mapping[str, str]:
    """What the templates below hold for the user's tensors and options."""
    options, tensors = problem.options, problem.tensors
    mask = tensors.get("attn_mask")
    size = tensors["query"].shape[-1]
    boolean = mask is not None and mask.dtype not in FORMATS
    shared = "query" in tensors and problem.plan.groups and problem.plan.groups[-1] > 1
    keep = {False: "", True: "~attn_mask.bool()" if options.mask_drops else "attn_mask.bool()"}[boolean]
    return {
        "query": "query{cast}",
        "key": "key{cast}",
        "value": ("value" if "value" in tensors else "key") + "{cast}",
        "scale": repr(options.scale) if options.scale else f"{size} ** -0.5",
        "before": _joined_mask(options.causal, mask is not None, keep),
        "attn_mask": _mask_argument(options.causal, mask is not None, keep),
        "options": (f", scale={options.scale!r}" if options.scale else "")
        + (", enable_gqa=True" if shared else ""),
        "masked": _masked_scores(options.causal, mask is not None, keep),
    }


_LOWER = "torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()"


def _joined_mask(causal: bool, has_mask: bool, keep: str) -> str:
    """A line that joins causality and the mask, where both are there: PyTorch takes only one of them."""
    if not (causal and has_mask):
        return ""
    if keep:
        return f"attn_mask = {keep} & {_LOWER}\n"
    return f"attn_mask = attn_mask.masked_fill(~{_LOWER}, -torch.inf)\n"


def _mask_argument(causal: bool, has_mask: bool, keep: str) -> str:
    if not has_mask:
        return ", is_causal=True" if causal else ""
    return f", attn_mask={keep}" if keep and not causal else ", attn_mask=attn_mask{cast}"


def _masked_scores(causal: bool, has_mask: bool, keep: str) -> str:
    lines = []
    if has_mask:
        lines.append(f"scores.masked_fill(~({keep}), -torch.inf)" if keep else "scores + attn_mask")
    if causal:
        lines.append(f"scores.masked_fill(~{_LOWER}, -torch.inf)")
    return "".join(f"scores = {line}\n" for line in lines)


def _hand_written(problem: Any) -> bool:
    """Whether query and key have as many heads: code with @ needs that."""
    return not problem.plan.groups or problem.plan.groups[-1] == 1


_CALL = "{before}output = F.scaled_dot_product_attention({query}, {key}, {value}{attn_mask}{options})"
_SDPA: Fix[Any] = Fix("call F.scaled_dot_product_attention", _CALL)
_FLOAT32: Fix[Any] = Fix(
    "compute the attention in float32", _CALL, slots={"cast": ".float()"},
    when=lambda problem: problem.narrow,
)  # fmt: skip
_SCALE_FIRST: Fix[Any] = Fix(
    "scale the query before the product",
    "scores = ({query} * {scale}) @ {key}.mT\n{masked}output = scores.softmax(-1) @ {value}",
    when=_hand_written,
)
_NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on the output",
    "scores = {query} @ {key}.mT * {scale}\n{masked}output = torch.nan_to_num(scores.softmax(-1) @ {value})",
    when=_hand_written, tempting=True,
)  # fmt: skip
_WAYS_OUT = (_SDPA, _SCALE_FIRST, _NAN_TO_NUM)
_OVERFLOWS = (_SDPA, _SCALE_FIRST, _FLOAT32, _NAN_TO_NUM)


def _says(form: str) -> Callable[[Unit], str]:
    def text(unit: Unit) -> str:
        return (
            unit.first_bad(form)
            or f"{form} gives {unit.value(form):.6g}, the truth is {unit.value('truth'):.6g}"
        )

    return text


def _empty_row(unit: Unit) -> str:
    return f"the mask leaves none of {unit.cast['key'].shape[-2]:,} keys: max = -inf, and -inf - -inf = NaN"


def _product_overflows(unit: Unit) -> str:
    exact = unit.cast["query"].double() @ unit.cast["key"].double().mT
    largest = float(exact.abs().max())
    limit = FORMATS[str(unit.cast["query"].dtype).removeprefix("torch.")].max
    return f"q @ k.mT reaches {largest:.6g} > {limit:.6g} in {unit.dtype}, before it is scaled"


def _mask_becomes_infinite(unit: Unit) -> str:
    stored, cast = unit.stored["attn_mask"], unit.cast["attn_mask"]
    changed = cast.isinf() & stored.isfinite()
    return (
        f"{int(changed.sum()):,} mask entries of {float(stored[changed][0]):.6g} become -inf in {unit.dtype}"
    )


def _not_finite(unit: Unit) -> str:
    counts = {
        name: int((~each.isfinite()).sum()) for name, each in unit.stored.items() if name != "attn_mask"
    }
    return ", ".join(
        f"{count:,} values of {name} are NaN or infinite" for name, count in counts.items() if count
    )


def _overflows_in_cast(unit: Unit) -> str:
    for name, each in unit.cast.items():
        lost = (
            each.isinf() & unit.stored[name].isfinite() if each.is_floating_point() else each.bool() & False
        )
        if bool(lost.any()):
            return f"{name} {float(unit.stored[name][lost][0]):.6g} becomes infinite in {unit.dtype}"
    return ""


def _fails(behaviour: Behaviour) -> Bools:
    return behaviour.bad_value | behaviour.bad_gradient


def _input(f: Facts) -> Bools:
    """Rows whose input is at fault, which has a finding of its own."""
    return f.own["not_finite"] | f.own["cast_overflow"]


def _naive_fails_otherwise(f: Facts) -> Bools:
    """What no more telling rule explains."""
    return _fails(f.naive) & ~f.own["empty"] & ~f.own["product_overflow"] & ~_input(f)


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
_OP = "attention"
RULES: tuple[Rule[Facts, Unit, Any], ...] = (
    Rule(
        "NH601", "attention-input-not-finite", _E,
        "A query, or a key or value of its head, is NaN or infinite.",
        "Every score that it takes part in is NaN, and the softmax makes the whole row NaN.",
        "Find what produced it (nanhunt run names the operation); no attention can repair it.",
        operation=_OP, holds=lambda f: f.own["not_finite"], arithmetic=_not_finite, input_at_fault=True,
    ),
    Rule(
        "NH602", "attention-cast-overflow", _E,
        "A query, key or value that is finite in the file is infinite in the chosen dtype.",
        "It is beyond the format's largest number, so the cast destroys it before any product.",
        "Keep the projections in float32 or bfloat16.",
        operation=_OP, holds=lambda f: f.own["cast_overflow"], arithmetic=_overflows_in_cast, input_at_fault=True,
    ),
    Rule(
        "NH603", "attention-not-finite", _E,
        "Even F.scaled_dot_product_attention is not finite, or its gradient is not.",
        "The numbers of this row leave no finite result in the dtype.",
        "Compute the attention in a wider dtype, or normalise query and key.",
        operation=_OP, holds=lambda f: _fails(f.fused) & ~_input(f), arithmetic=_says("fused"), fixes=(_FLOAT32,),
    ),
    Rule(
        "NH604", "fully-masked-query", _W,
        "The mask leaves no key to this query.",
        "The softmax over nothing is 0/0: softmax gives NaN, PyTorch's own attention a row of 0.",
        "Call F.scaled_dot_product_attention with the mask, or leave such queries (padding) out.",
        operation=_OP, holds=lambda f: f.own["empty"] & _fails(f.naive),
        arithmetic=_empty_row, fixes=(_SDPA, _NAN_TO_NUM),
    ),
    Rule(
        "NH605", "score-overflow", _W,
        "The product q @ k.mT overflows before it is scaled.",
        "inf - inf in the softmax is NaN, although the scaled score would have been moderate.",
        "Scale q first, or call F.scaled_dot_product_attention, which adds up in float32.",
        operation=_OP, holds=lambda f: f.own["product_overflow"] & _fails(f.naive) & ~_input(f),
        arithmetic=_product_overflows, fixes=_OVERFLOWS,
    ),
    Rule(
        "NH606", "naive-attention-not-finite", _W,
        "softmax(q @ k.mT * scale + mask) @ v is not finite, or its gradient is not.",
        "An operation on the way from the scores to the output leaves the format.",
        "Call F.scaled_dot_product_attention.",
        operation=_OP, holds=_naive_fails_otherwise, arithmetic=_says("naive"), fixes=_OVERFLOWS,
    ),
    Rule(
        "NH607", "mask-becomes-infinite", _N,
        "A finite entry of the additive mask is -inf in the chosen dtype.",
        "finfo(float32).min and -1e9 are beyond float16: a row of them, harmless before, is now masked everywhere.",
        "Use a bool mask, or torch.finfo of the dtype that the scores have.",
        operation=_OP, holds=lambda f: f.own["mask_cast"] & f.own["empty"], arithmetic=_mask_becomes_infinite,
    ),
    Rule(
        "NH608", "exp-of-scores-overflow", _N,
        "The exp of a score overflows: a softmax spelled by hand would be NaN.",
        "exp(x) without the row maximum subtracted is inf beyond the format's limit.",
        "Use softmax or F.scaled_dot_product_attention, which subtract it.",
        operation=_OP, holds=lambda f: f.own["exp_overflow"] & ~_input(f),
        arithmetic=_says("exp-by-hand"), fixes=(_SDPA,),
    ),
    Rule(
        "NH609", "mean-of-masked-values", _N,
        "With a mask of large finite numbers this query gets an average of values that it must not see.",
        "Where every score has the same large negative number added, the numbers themselves are rounded away and the "
        "softmax is uniform.",
        "Use a bool mask with F.scaled_dot_product_attention, which gives 0.",
        operation=_OP, holds=lambda f: f.own["empty"] & f.by["finite-mask"].wrong, arithmetic=_says("finite-mask"),
        fixes=(_SDPA,),
    ),
    Rule(
        "NH610", "attention-imprecise", _N,
        "The handwritten output is finite, and off by more than the rounding of its scores.",
        "Scores of large magnitude are rounded before their differences are taken.",
        "Call F.scaled_dot_product_attention, or compute the scores in float32.",
        operation=_OP, holds=lambda f: f.naive.wrong & ~f.fused.wrong, arithmetic=_says("naive"),
        fixes=(_SDPA, _FLOAT32),
    ),
)  # fmt: skip

ATTENTION = Operation(
    name="attention",
    what="Scaled dot-product attention: softmax(q k^T / sqrt(d) + mask) v, query by query.",
    unit="row",
    fused_call="F.scaled_dot_product_attention",
    roles=(
        Role(
            "query", r"(.*[_-])?(q|query|queries)([_-]states?)?", FLOATING,
            what="(..., heads, L, D) float", gradient="unit",
        ),
        Role(
            "key", r"(.*[_-])?(k|keys?)([_-]states?)?", FLOATING,
            what="(..., heads or fewer, S, D) float", gradient="group",
        ),
        Role(
            "value", r"(.*[_-])?(v|values?)([_-]states?)?", FLOATING, required=False,
            what="(..., heads or fewer, S, Dv) float", gradient="group",
        ),
        Role(
            "attn_mask", r"((attn|attention|causal)[_-]?)?mask|attn[_-]?bias", FLOATING + INTEGER, required=False,
            what="broadcast to (..., heads, L, S): bool, or float that is added to the scores",
        ),
    ),
    options=AttentionOptions,
    plan=plan,
    forms={
        "naive": naive, "scale-first": scale_first, "exp-by-hand": exp_by_hand, "finite-mask": finite_mask,
        "fused": fused,
    },
    truth=truth,
    facts=facts,
    rules=RULES,
    slots=slots,
    scale=scale,
    isolate=isolate,
    shapes={"query": (8, 128, 64), "key": (8, 128, 64), "value": (8, 128, 64), "attn_mask": (128, 128)},
)  # fmt: skip
