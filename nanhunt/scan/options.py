"""All that the user can ask of a scan: what to read, what to judge, how to report."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.operations.attention_options import AttentionOptions
from nanhunt.operations.cross_entropy.options import CrossEntropyOptions
from nanhunt.operations.ppo.options import PpoOptions
from nanhunt.results.options import ReportOptions


@dataclass(frozen=True, kw_only=True)
class Options(ReportOptions, PpoOptions, AttentionOptions, CrossEntropyOptions):
    """Every room's options in one object: each room takes it as the part that it knows.

    An operation that has options of its own adds its class to the bases.
    """
