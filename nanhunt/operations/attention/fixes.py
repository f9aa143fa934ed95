"""Ways out, and what only looks like one; each is run before it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nanhunt.dtypes.formats import FORMATS
from nanhunt.operations.fix import Fix


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
SDPA: Fix[Any] = Fix("call F.scaled_dot_product_attention", _CALL)
FLOAT32: Fix[Any] = Fix(
    "compute the attention in float32", _CALL, slots={"cast": ".float()"},
    when=lambda problem: problem.narrow,
)  # fmt: skip
SCALE_FIRST: Fix[Any] = Fix(
    "scale the query before the product",
    "scores = ({query} * {scale}) @ {key}.mT\n{masked}output = scores.softmax(-1) @ {value}",
    when=_hand_written,
)
NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on the output",
    "scores = {query} @ {key}.mT * {scale}\n{masked}output = torch.nan_to_num(scores.softmax(-1) @ {value})",
    when=_hand_written, tempting=True,
)  # fmt: skip
OVERFLOWS = (SDPA, SCALE_FIRST, FLOAT32, NAN_TO_NUM)
