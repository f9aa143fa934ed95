"""Attention's own options: every command's flags are made from them before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.operations.options import MaskOptions
from nanhunt.options import option


@dataclass(frozen=True, kw_only=True)
class AttentionOptions(MaskOptions):
    """Attention."""

    scale: float = option(0.0, help="Multiplies q @ k.mT; 0 stands for 1 / sqrt(D).")
    softcap: float = option(
        0.0, help="Scores s become softcap * tanh(s / softcap) before the mask, as in Gemma 2; 0: they stay.",
        at_least=0.0,
    )  # fmt: skip
    causal: bool = option(False, help="Query i sees keys 0 to i only.")
