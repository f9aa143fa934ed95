"""What the user asks of a report."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.options import option


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """When to fail."""

    fail_on: str = option(
        "warning",
        help="Exit with 1 from this severity on.",
        choices=("error", "warning", "note", "never"),
    )
