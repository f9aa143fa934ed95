"""Gumbel-softmax's own options, beside its file: every command's flags are made from them before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.options import option


@dataclass(frozen=True, kw_only=True)
class GumbelOptions:
    """Gumbel-softmax."""

    tau: float = option(1.0, help="What logits and noise are divided by.", at_least=1e-6)
    hard: bool = option(False, help="One-hot samples, with the gradient of the soft ones.")
    draws: int = option(1, help="Samples a row, where the file holds no noise.", at_least=1)
    seed: int = option(0, help="Of the noise, where the file holds none.")
