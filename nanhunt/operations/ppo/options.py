"""PPO's own options: every command's flags are made from them before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.operations.options import BetaOptions, LossOptions, MaskOptions
from nanhunt.options import option


@dataclass(frozen=True, kw_only=True)
class PpoOptions(BetaOptions, MaskOptions, LossOptions):
    """Policy ratios (ppo)."""

    clip_low: float = option(
        0.2, help="The ratio is clipped below at 1 minus this.", at_least=0.0, at_most=1.0
    )
    clip_high: float = option(0.2, help="The ratio is clipped above at 1 plus this.", at_least=0.0)
    clip_dual: float = option(
        0.0, help="Where the advantage is negative the ratio counts up to this, above 1 (dual clip); 0: without end.",
        at_least=0.0,
    )  # fmt: skip
    level: str = option(
        "token",
        help="A ratio for each token, or one for a sequence (GSPO), over whose tokens the loss is a mean.",
        choices=("token", "sequence"),
    )
    aggregation: str = option(
        "token-mean",
        help="How the losses of tokens become one.",
        choices=("token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"),
    )
    kl: str = option(
        "k3",
        help="Estimator of the KL term where there are ref_log_probs.",
        choices=("k3", "k2", "k1", "none"),
    )
