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
    level: str = option(
        "token", help="A ratio for each token, or one for a sequence (GSPO).", choices=("token", "sequence")
    )
    aggregation: str = option(
        "token-mean",
        help="How the losses of tokens become one.",
        choices=("token-mean", "seq-mean-token-mean", "seq-mean-token-sum"),
    )
    kl: str = option(
        "k3",
        help="Estimator of the KL term where there are ref_log_probs.",
        choices=("k3", "k2", "k1", "none"),
    )
