"""The norm's own options, beside its file: every command's flags are made from them before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.operations.options import EpsOptions
from nanhunt.options import option


@dataclass(frozen=True, kw_only=True)
class NormOptions(EpsOptions):
    """Norms."""

    norm: str = option("rms", help="What a row is divided by.", choices=("rms", "layer", "l2", "cosine"))
