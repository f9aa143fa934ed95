"""The options of binary cross entropy: every command's flags are made from them before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.operations.options import BetaOptions, LossOptions
from nanhunt.options import option


@dataclass(frozen=True, kw_only=True)
class BceOptions(BetaOptions, LossOptions):
    """Binary cross entropy (bce)."""

    gamma: float = option(
        0.0,
        help="Focal loss: the loss of a label is multiplied by (1 - its probability)**gamma.",
        at_least=0.0,
    )
    pos_weight: float = option(1.0, help="Weight of the positive label, of one class.", at_least=0.0)
