"""The distance's own options, beside its file: every command's flags are made from them before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.options import option


@dataclass(frozen=True, kw_only=True)
class DistanceOptions:
    """Distances."""

    p: float = option(
        2.0, help="The norm of the difference: 2 is Euclid's, 1 adds up absolute values.", at_least=1.0
    )
