"""The operation: what its tensors are called, and everything that is known of it in one object."""

from __future__ import annotations

from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING, INTEGER
from nanhunt.operations.attention import forms, plan
from nanhunt.operations.attention.fixes import slots
from nanhunt.operations.attention.options import AttentionOptions
from nanhunt.operations.attention.rules import RULES
from nanhunt.operations.operation import Operation

ATTENTION = Operation(
    name="attention",
    what="Scaled dot-product attention: softmax(q k^T / sqrt(d) + mask) v, query by query.",
    unit="row",
    fused_call=forms.fused_call,
    roles=(
        Role(
            "query", r"(.*[_-])?(q|query|queries)([_-](states?|layer))?", FLOATING,
            what="(..., heads, L, D) float", gradient="unit",
        ),
        Role(
            "scores", r"(.*[_-])?(attn|attention)[_-]?(scores?|logits)|scores", FLOATING, dimensions=2, required=False,
            replaces=("query", "key"), gradient="unit",
            what="(..., heads, L, S) float, scaled, before the softmax; for dumps without query and key",
        ),
        Role(
            "key", r"(.*[_-])?(k|keys?)([_-](states?|layer))?", FLOATING,
            what="(..., heads or fewer, S, D) float", gradient="group",
        ),
        Role(
            "value", r"(.*[_-])?(v|values?)([_-](states?|layer))?", FLOATING, required=False,
            what="(..., heads or fewer, S, Dv) float", gradient="group",
        ),
        Role(
            "attn_mask", r"((attn|attention|causal)[_-]?)?mask|attn[_-]?bias", FLOATING + INTEGER, required=False,
            is_mask=True, what="broadcast to (..., heads, L, S): bool, or float that is added to the scores",
        ),
    ),
    options=AttentionOptions,
    plan=plan.plan,
    forms={
        "naive": forms.naive, "scale-first": forms.scale_first, "exp-by-hand": forms.exp_by_hand,
        "finite-mask": forms.finite_mask, "softcap-by-exp": forms.softcap_by_exp, "fused": forms.fused,
    },
    unused=forms.unused,
    truth=forms.truth,
    facts=plan.facts,
    rules=RULES,
    slots=slots,
    scale=forms.scale,
    size=forms.size,
    isolate=plan.isolate,
    assumes=plan.assumes,
    shapes={"query": (8, 128, 64), "key": (8, 128, 64), "value": (8, 128, 64), "attn_mask": (128, 128)},
)  # fmt: skip
