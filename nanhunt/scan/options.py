"""All that the user can ask of a scan: what to read, what to judge, how to report."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.operations.registry import OperationOptions
from nanhunt.results.options import ReportOptions


@dataclass(frozen=True, kw_only=True)
class Options(ReportOptions, OperationOptions):
    """Every room's options in one object: each room takes it as the part that it knows."""
