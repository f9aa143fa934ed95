"""Repairs where a legal infinity, that of a mask, meets an operation that cannot digest it."""

from __future__ import annotations

from collections.abc import Iterator

from ..step_graph import argument
from .rewrite import Proposal
from .spot import Spot


def masked_rows(spot: Spot) -> Iterator[Proposal]:
    """A softmax over a row that is masked as a whole."""
    dim = argument(spot.entry, 1, "dim")
    value = spot.given
    if spot.name not in ("softmax", "log_softmax", "logsumexp") or value is None or not isinstance(dim, int):
        return
    dead = f".isneginf().all(dim={dim}, keepdim=True)"
    rows = int(value.isneginf().all(dim).sum())
    if not rows:
        return
    scores = spot.operand(0, "input")
    filled = f"{{scores}}.masked_fill({{scores}}{dead}, 0.0)"
    kept = f"{{torch}}.softmax({filled}, dim={dim}).masked_fill({{scores}}{dead}, 0.0)"
    if spot.name == "softmax":
        rewrite = spot.whole(kept, scores=scores)
        if rewrite is not None:
            bends = (
                "{} rows that are masked as a whole get weights of 0, as scaled_dot_product_attention gives"
            )
            yield Proposal(
                "give rows that are masked as a whole a softmax of 0", (rewrite,), bends, (rows, 0)
            )
    unmasked = spot.argument(f"{{x}}.masked_fill({{x}}{dead}, 0.0)")
    if unmasked is not None:
        bends = "{} rows that are masked as a whole are taken as all equal"
        yield Proposal("unmask rows that are masked as a whole", (unmasked,), bends, (rows, 0))


def zero_times_infinity(spot: Spot) -> Iterator[Proposal]:
    """An infinity that is multiplied by 0: the product counts as 0."""
    if spot.name != "mul":
        return
    for place in (0, 1):
        infinite, factor = spot.value(spot.operand(place)), spot.value(spot.operand(1 - place))
        if infinite is None or factor is None or not infinite.is_floating_point():
            continue
        if bool(infinite.isinf().any()) and bool((factor == 0).any()):
            rewrite = spot.argument("{torch}.where({y} == 0, 0.0, {x})", place, y=spot.operand(1 - place))
            if rewrite is not None:
                yield Proposal("leave an infinity out of the product where the factor is 0", (rewrite,))


def equal_infinities(spot: Spot) -> Iterator[Proposal]:
    """inf - inf, where both are masked: the difference counts as 0."""
    if spot.name != "sub":
        return
    one, other = spot.value(spot.operand(0)), spot.value(spot.operand(1))
    if one is not None and other is not None and bool((one.isinf() & (one == other)).any()):
        rewrite = spot.whole(
            "{torch}.where({x}.isinf() & ({x} == {y}), 0.0, {x} - {y})",
            x=spot.operand(0),
            y=spot.operand(1),
        )
        if rewrite is not None:
            yield Proposal("let two equal infinities differ by 0", (rewrite,))
