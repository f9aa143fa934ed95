"""The masked mean's own options, beside its file: every command's flags are made from them before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.operations.options import EpsOptions
from nanhunt.options import option


@dataclass(frozen=True, kw_only=True)
class MaskedMeanOptions(EpsOptions):
    """Means under a mask, and advantages."""

    std: bool = option(False, help="Standardise: subtract the mean and divide by the deviation plus --eps.")
