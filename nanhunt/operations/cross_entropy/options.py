"""Softmax cross entropy's own options: those of ``F.cross_entropy``, and the temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nanhunt.load.options import ReadOptions
from nanhunt.operations.options import JudgeOptions, LossOptions, TemperatureOptions
from nanhunt.options import declared, option


@dataclass(frozen=True, kw_only=True)
class LossTerms(TemperatureOptions):
    """The softmax cross entropy.

    What changes the terms of the loss, whatever the rows and their reduction. An option that is added here, under
    the name that ``F.cross_entropy`` has for it, is given to the call that is run and to the one that is printed; the
    units of work inherit it. What it does is written once more, by hand, in ``forms.by_hand``, which the handwritten
    forms and the truth share.
    """

    ignore_index: int = option(-100, help="Rows with this label do not count in the loss.")
    label_smoothing: float = option(0.0, help="As in F.cross_entropy.", at_least=0.0, at_most=1.0)


def terms_of(options: LossTerms) -> dict[str, Any]:
    """The terms alone, by name, for another class that has them."""
    return {name: getattr(options, name) for name in declared(LossTerms)}


def fused_terms(options: LossTerms, with_labels: bool) -> dict[str, Any]:
    """What ``F.cross_entropy`` takes of them, by its own names; an ignored index only with class numbers."""
    by_hand = {*declared(TemperatureOptions), *(() if with_labels else ("ignore_index",))}
    return {name: value for name, value in terms_of(options).items() if name not in by_hand}


def changes_terms(options: LossTerms) -> bool:
    """Whether the loss of some row is another one than -log p of its label: a term is not at its default."""
    known = declared(LossTerms)
    return any(
        getattr(options, name) != each.default for name, each in known.items() if name != "ignore_index"
    )


@dataclass(frozen=True, kw_only=True)
class CrossEntropyOptions(LossTerms, LossOptions, JudgeOptions, ReadOptions):
    """The softmax cross entropy.

    The fields of the last base stand first.
    """

    shift: bool | None = option(
        None,
        help="Judge the logits at t against label t + 1, as a causal language model's loss does. "
        "Default: where that is recognised.",
        is_flag=True,
    )
    loss: str | None = option(
        None,
        help="How you write it: fused, by calling F.cross_entropy, drops the warnings, which are about code written "
        "by hand. Default: they stay, since logits do not say who computes what with them.",
        choices=("fused", "naive"),
    )
