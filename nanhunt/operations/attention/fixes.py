"""Ways out, and what only looks like one; each is run before it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nanhunt.dtypes.formats import FORMATS
from nanhunt.operations.attention.forms import by_scores
from nanhunt.operations.fix import Fix


def slots(problem: Any) -> Mapping[str, str]:
    """What the templates below hold for the user's tensors and options: code of attention by the parts of it."""
    options, mask, keep = problem.options, problem.tensors.get("attn_mask"), _keep(problem)
    if by_scores(problem.tensors):
        return _slots_of_scores(problem)
    factor = repr(options.scale) if options.scale else f"{problem.tensors['query'].shape[-1]} ** -0.5"
    value = ("value" if "value" in problem.tensors else "key") + "{cast}"
    masked = _cap(options) + _masked_scores(options.causal, mask is not None, keep, _LOWER)
    first, of_heads = (
        f"scores = (query{{cast}} * {factor}) @ key{{cast}}{heads}.mT\n{masked}"
        for heads in ("", _of_heads(problem))
    )
    return {
        "call": _call_on_scores(problem, of_heads, value) if options.softcap else _call(problem, keep, value),
        "scores": f"scores = query{{cast}} @ key{{cast}}.mT * {factor}\n{masked}",
        "scaled_first": first,
        "weighted": "scores.softmax(-1) @ " + value,
    }


def _cap(options: Any) -> str:
    return (
        f"scores = {options.softcap!r} * (scores / {options.softcap!r}).tanh()\n" if options.softcap else ""
    )


def _call(problem: Any, keep: str, value: str) -> str:
    options, has_mask = problem.options, "attn_mask" in problem.tensors
    scale = f", scale={options.scale!r}" if options.scale else ""
    mask = _mask_argument(options.causal, has_mask, keep)
    before = _joined_mask(options.causal, has_mask, keep)
    given = f"query{{cast}}, key{{cast}}, {value}{mask}{scale}{_gqa(problem)}"
    return f"{before}output = F.scaled_dot_product_attention({given})"


def _call_on_scores(problem: Any, scores: str, value: str) -> str:
    """PyTorch's call has no softcap, and takes no scores: they are the mask of a query and key of 0."""
    return (
        f"{scores}# Of 0, they add nothing to the scores.\n"
        f"q, k = {value}.new_zeros(*scores.shape[:-1], 1), {value}.new_zeros(*{value}.shape[:-1], 1)\n"
        f"output = F.scaled_dot_product_attention(q, k, {value}, attn_mask=scores{{cast}}{_gqa(problem)})"
    )


def _of_heads(problem: Any) -> str:
    """Gives every query head the key that it shares with others; "" where it has its own."""
    shared = problem.plan.groups[-1] if problem.plan.groups else 1
    return f".repeat_interleave({shared}, -3)" if shared > 1 else ""


def _gqa(problem: Any) -> str:
    return "" if _hand_written(problem) else ", enable_gqa=True"


def _keep(problem: Any) -> str:
    """An expression that is True where a bool mask lets a key take part; "" for a float mask, and without one."""
    mask = problem.tensors.get("attn_mask")
    if mask is None or mask.dtype in FORMATS:
        return ""
    return "~attn_mask.bool()" if problem.options.mask_drops else "attn_mask.bool()"


def _slots_of_scores(problem: Any) -> Mapping[str, str]:
    """Without a value the output is the weights: those of an identity."""
    tensors, options = problem.tensors, problem.options
    lower = "torch.ones(scores.shape[-2:], dtype=torch.bool).tril()"
    masked = _masked_scores(options.causal, "attn_mask" in tensors, _keep(problem), lower)
    identity = "v = torch.eye(scores.shape[-1]).to(scores{cast}).expand(*scores.shape[:-2], -1, -1)\n"
    valued = "value" in tensors
    return {
        "call": _call_on_scores(
            problem, masked + ("" if valued else identity), "value{cast}" if valued else "v"
        ),
        "scores": masked,
        "weighted": "scores.softmax(-1)" + (" @ value{cast}" if valued else ""),
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


SDPA: Fix[Any] = Fix("call F.scaled_dot_product_attention", "{call}")
FLOAT32: Fix[Any] = Fix(
    "compute the attention in float32", "{call}", slots={"cast": ".float()"},
    when=lambda problem: problem.narrow,
)  # fmt: skip
SCALE_FIRST: Fix[Any] = Fix(
    "scale the query before the product",
    "{scaled_first}output = {weighted}",
    when=lambda problem: _hand_written(problem) and not by_scores(problem.tensors),
)
NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on the output",
    "{scores}output = torch.nan_to_num({weighted})",
    when=_hand_written, tempting=True,
)  # fmt: skip
OVERFLOWS = (SDPA, SCALE_FIRST, FLOAT32, NAN_TO_NUM)
