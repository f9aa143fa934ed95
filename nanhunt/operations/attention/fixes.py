"""Ways out, and what only looks like one; each is run before it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nanhunt.dtypes.formats import FORMATS
from nanhunt.operations.attention.forms import by_scores
from nanhunt.operations.fix import Fix


def slots(problem: Any) -> Mapping[str, str]:
    """What the templates below hold for the user's tensors and options."""
    options, tensors = problem.options, problem.tensors
    if by_scores(tensors):
        return _slots_of_scores(problem)
    mask, keep = tensors.get("attn_mask"), _keep(problem)
    size = tensors["query"].shape[-1]
    shared = problem.plan.groups and problem.plan.groups[-1] > 1
    factor = repr(options.scale) if options.scale else f"{size} ** -0.5"
    value = ("value" if "value" in tensors else "key") + "{cast}"
    return {
        "query": "query{cast}",
        "key": "key{cast}",
        "value": value,
        "scale": factor,
        "before": _joined_mask(options.causal, mask is not None, keep),
        "attn_mask": _mask_argument(options.causal, mask is not None, keep),
        "options": (f", scale={options.scale!r}" if options.scale else "")
        + (", enable_gqa=True" if shared else ""),
        "scores": f"scores = query{{cast}} @ key{{cast}}.mT * {factor}\n",
        "masked": _masked_scores(options.causal, mask is not None, keep, _LOWER),
        "weighted": "scores.softmax(-1) @ " + value,
    }


def _keep(problem: Any) -> str:
    """An expression that is True where a bool mask lets a key take part; "" for a float mask, and without one."""
    mask = problem.tensors.get("attn_mask")
    if mask is None or mask.dtype in FORMATS:
        return ""
    return "~attn_mask.bool()" if problem.options.mask_drops else "attn_mask.bool()"


def _slots_of_scores(problem: Any) -> Mapping[str, str]:
    """Scores are the mask of a query and key of 0; without a value the output is the weights."""
    tensors, options = problem.tensors, problem.options
    valued, shared = "value" in tensors, problem.plan.groups and problem.plan.groups[-1] > 1
    lower = "torch.ones(scores.shape[-2:], dtype=torch.bool).tril()"
    masked = _masked_scores(options.causal, "attn_mask" in tensors, _keep(problem), lower)
    identity = "v = torch.eye(scores.shape[-1]).to(scores{cast}).expand(*scores.shape[:-2], -1, -1)\n"
    v = "value{cast}" if valued else "v"
    zeros = f"q, k = {v}.new_zeros(*scores.shape[:-1], 1), {v}.new_zeros(*{v}.shape[:-1], 1)\n"
    return {
        "query": "q", "key": "k", "value": v,
        "before": masked + ("" if valued else identity) + "# Of 0, they add nothing to the scores.\n" + zeros,
        "attn_mask": ", attn_mask=scores{cast}",
        "options": ", enable_gqa=True" if shared else "",
        "scores": "",
        "masked": masked,
        "weighted": "scores.softmax(-1)" + (f" @ {v}" if valued else ""),
    }  # fmt: skip


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


def _masked_scores(causal: bool, has_mask: bool, keep: str, lower: str) -> str:
    lines = []
    if has_mask:
        lines.append(
            f"scores.masked_fill(~({keep}), -torch.inf)" if keep else "scores{cast} + attn_mask{cast}"
        )
    if causal:
        lines.append(f"scores.masked_fill(~{lower}, -torch.inf)")
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
    "scores = ({query} * {scale}) @ {key}.mT\n{masked}output = {weighted}",
    when=lambda problem: _hand_written(problem) and not by_scores(problem.tensors),
)
NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on the output",
    "{scores}{masked}output = torch.nan_to_num({weighted})",
    when=_hand_written, tempting=True,
)  # fmt: skip
OVERFLOWS = (SDPA, SCALE_FIRST, FLOAT32, NAN_TO_NUM)
