"""KL's own options, beside its file: every command's flags are made from them before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.operations.options import LossOptions
from nanhunt.options import option


@dataclass(frozen=True, kw_only=True)
class KlOptions(LossOptions):
    """The KL divergence of a distribution from another."""

    log_target: bool = option(False, help="The target holds log-probabilities, as in F.kl_div.")
