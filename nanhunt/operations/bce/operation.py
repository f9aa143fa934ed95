"""The operation: what its tensors are called, and everything that is known of it in one object."""

from __future__ import annotations

from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING, INTEGER
from nanhunt.operations.bce import forms
from nanhunt.operations.bce.fixes import slots
from nanhunt.operations.bce.options import BceOptions
from nanhunt.operations.bce.rules import RULES, facts, screen
from nanhunt.operations.operation import Operation

_SIDE = r"{0}{1}([_-]?(logps?|log[_-]?probs?|rewards?))?|rewards?[_-]{1}"
"""chosen_logps and rewards_chosen of TRL, chosen_reward of OpenRLHF."""

BCE = Operation(
    name="bce",
    what="Binary cross entropy: -(y log sigmoid(x) + (1 - y) log(1 - sigmoid(x))), value by value; focal with --gamma, "
    "and of preferences -log sigmoid(beta (chosen - rejected)).",
    unit="value",
    fused_call=forms.fused_call,
    roles=(
        Role(
            "logits", r".*logits?|(.*[_-])?scores?|y_pred", FLOATING,
            what="any shape, float: scores before the sigmoid", gradient="unit",
        ),
        Role(
            "targets", r"(.*[_-])?(targets?|labels?)([_-]probs?)?|y|y_true", FLOATING + INTEGER,
            what="the logits' shape: 0, 1 or a probability",
        ),
        Role(
            "chosen", _SIDE.format("(policy[_-])?", "chosen"), FLOATING, required=False,
            replaces=("logits", "targets"), gradient="unit",
            what="instead: log-probabilities (or rewards) of the preferred answers",
        ),
        Role(
            "rejected", _SIDE.format("(policy[_-])?", "reject(ed)?"), FLOATING, required=False,
            replaces=("logits", "targets"), gradient="unit", what="and of the others",
        ),
        Role(
            "ref_chosen", _SIDE.format("(ref|reference)[_-]", "chosen"), FLOATING, required=False,
            what="the same under the reference policy",
        ),
        Role(
            "ref_rejected", _SIDE.format("(ref|reference)[_-]", "rejected"), FLOATING, required=False,
            what="the same under the reference policy",
        ),
    ),
    options=BceOptions,
    plan=forms.plan,
    forms={
        "naive": forms.naive, "bce-of-sigmoid": forms.bce_of_sigmoid, "logsigmoid": forms.logsigmoid,
        "modulated": forms.modulated, "fused": forms.fused,
    },
    unused=forms.unused,
    truth=forms.truth,
    facts=facts,
    rules=RULES,
    slots=slots,
    screen=screen,
    reduces=True,
    shapes={"logits": (32, 10), "targets": (32, 10)},
)  # fmt: skip
