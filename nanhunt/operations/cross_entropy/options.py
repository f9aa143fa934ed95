"""Softmax cross entropy's own options: those of ``F.cross_entropy``, and the temperature."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.load.options import ReadOptions
from nanhunt.operations.options import JudgeOptions, LossOptions, TemperatureOptions
from nanhunt.options import option


@dataclass(frozen=True, kw_only=True)
class CrossEntropyOptions(TemperatureOptions, LossOptions, JudgeOptions, ReadOptions):
    """The softmax cross entropy.

    The fields of the last base stand first.
    """

    shift: bool | None = option(
        None,
        help="Judge the logits at t against label t + 1, as a causal language model's loss does. "
        "Default: where that is recognised.",
        is_flag=True,
    )
    ignore_index: int = option(-100, help="Rows with this label do not count in the loss.")
    label_smoothing: float = option(0.0, help="As in F.cross_entropy.", at_least=0.0, at_most=1.0)
