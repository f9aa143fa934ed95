"""Repairs of means over nothing: the sum, divided by a count that is at least 1."""

from __future__ import annotations

from collections.abc import Iterator

from ..step_graph import argument
from .rewrite import Proposal
from .spot import Spot

_TITLE = "divide the sum by a count of at least 1, so that the mean of nothing is 0"


def mean_of_nothing(spot: Spot) -> Iterator[Proposal]:
    """x.mean() of an empty x."""
    value = spot.given
    if (
        spot.name == "mean"
        and value is not None
        and not value.numel()
        and argument(spot.entry, 1, "dim") is None
    ):
        rewrite = spot.whole("{selected}.sum() / max({selected}.numel(), 1)", selected=spot.operand(0))
        if rewrite is not None:
            yield Proposal(_TITLE, (rewrite,))


def loss_of_nothing(spot: Spot) -> Iterator[Proposal]:
    """An elementwise loss of empty tensors: reduced by hand."""
    losses = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits")
    value = spot.given
    if spot.name in losses and value is not None and not value.numel():
        template = (
            f'{{F}}.{spot.name}({{selected}}, {{target}}, reduction="sum") / max({{selected}}.numel(), 1)'
        )
        rewrite = spot.whole(template, selected=spot.operand(0, "input"), target=spot.operand(1, "target"))
        if rewrite is not None:
            yield Proposal(_TITLE, (rewrite,))


def all_labels_ignored(spot: Spot) -> Iterator[Proposal]:
    """F.cross_entropy where no label counts, or none has weight."""
    if spot.name not in ("cross_entropy", "nll_loss") or argument(spot.entry, 6, "reduction") not in (
        None,
        "mean",
    ):
        return
    ignored = argument(spot.entry, 4, "ignore_index")
    ignored = -100 if ignored is None else ignored
    smoothing = argument(spot.entry, 7, "label_smoothing")
    options = (f", ignore_index={ignored}" if ignored != -100 else "") + (
        f", label_smoothing={smoothing}" if smoothing else ""
    )
    holes = {"logits": spot.operand(0, "input"), "labels": spot.operand(1, "target")}
    count = f"({{labels}} != {ignored}).sum().clamp(min=1)"
    if argument(spot.entry, 2, "weight") is not None:
        holes["weights"] = spot.operand(2, "weight")
        options += ", weight={weights}"
        count = "{weights}[{labels}].sum().clamp(min=1e-8)"
        if smoothing or bool(_has(spot, ignored)):
            return
    template = f'{{F}}.{spot.name}({{logits}}, {{labels}}{options}, reduction="sum") / {count}'
    rewrite = spot.whole(template, **holes)
    if rewrite is not None:
        yield Proposal(_TITLE, (rewrite,))


def _has(spot: Spot, ignored: object) -> bool:
    labels = spot.value(spot.operand(1, "target"))
    return labels is not None and isinstance(ignored, int) and bool(labels.eq(ignored).any())
