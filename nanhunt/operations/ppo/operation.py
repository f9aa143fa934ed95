"""The operation: what its tensors are called, and everything that is known of it in one object."""

from __future__ import annotations

from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING, INTEGER
from nanhunt.operations.operation import Operation
from nanhunt.operations.ppo import forms, plan
from nanhunt.operations.ppo.fixes import STOPS, slots
from nanhunt.operations.ppo.options import PpoOptions
from nanhunt.operations.ppo.rules import RULES

_LOG_PROBS = r"(per[_-]token[_-])?(log[_-]?probs?|logps?)"
"""log_probs of verl and OpenRLHF, per_token_logps and logprobs of TRL, whose PPO has new_logprobs beside the old."""

PPO = Operation(
    name="ppo",
    what="The clipped policy objective of PPO, GRPO and GSPO: -min(r A, clip(r) A) with r = exp(new - old), and its "
    "KL term.",
    unit="token",
    fused_call="the ratio bounded before exp",
    roles=(
        Role(
            "log_probs", rf"((new|cur|current|policy|action)[_-])?{_LOG_PROBS}", FLOATING,
            what="(B, T) float: log-probabilities of the tokens under the policy that is trained", gradient="unit",
            prefers=r"(new|cur|current)[_-].*",
        ),
        Role(
            "old_log_probs", rf"(old|behaviou?r|sampling|rollout)[_-](action[_-])?{_LOG_PROBS}", FLOATING,
            what="(B, T) float: the same under the policy that sampled them",
            prefers=r"old[_-].*", otherwise=rf"(mb[_-])?{_LOG_PROBS}",
        ),
        Role("advantages", r"(mb[_-])?(advantages?|adv)", FLOATING, what="(B, T), (B, 1) or (B,) float"),
        Role(
            "mask", rf"((response|completion|action|loss|token)[_-])?mask|{plan.PADDING}", FLOATING + INTEGER,
            prefers=r"(response|completion|action|loss)[_-].*", required=False, cast=False,
            is_mask=True, what="(B, T): 1 or True where a token counts; in a padding_mask where it is left out",
        ),
        Role(
            "ref_log_probs", rf"(ref|reference|base)[_-](action[_-])?{_LOG_PROBS}", FLOATING, required=False,
            what="(B, T) float: under the reference policy, for the KL term",
        ),
    ),
    options=PpoOptions,
    plan=plan.plan,
    settled=plan.settled,
    forms={
        "naive": forms.naive, "masked-first": forms.masked_first, "clamped": forms.clamped, "fused": forms.fused,
    },
    truth=forms.truth,
    facts=plan.facts,
    rules=RULES,
    slots=slots,
    screen=plan.screen,
    shapes={"log_probs": (4, 128), "old_log_probs": (4, 128), "advantages": (4, 128), "mask": (4, 128)},
    reduces=True,
    objectives={"clamped": STOPS},
    count=plan.count,
    assumes=plan.assumes,
    isolate=plan.isolate,
)  # fmt: skip
