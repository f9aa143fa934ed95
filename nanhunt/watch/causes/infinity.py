"""What becomes of an infinity that the user wrote, or handed over."""

from __future__ import annotations

import math

from nanhunt.watch.scene import Scene

from .pattern import Pattern, named, say

_WRITERS = named("index_put fill copy masked_fill full index_fill masked_scatter")
_LAYERS = named("linear conv1d conv2d conv3d embedding layer_norm batch_norm group_norm rms_norm gru lstm")


def _written(scene: Scene) -> str:
    """The number that an assignment writes, if it is not finite."""
    bad = [one for one in scene.item.scalars if isinstance(one, float) and not math.isfinite(one)]
    return f"{bad[0]:g}" if bad else ""


def _infinity_fix(scene: Scene) -> str:
    if scene.source == "the input" or scene.called in _LAYERS:
        return f"Find out why {scene.source} brings an infinity, or leave such samples out: no mask goes into a layer."
    return (
        f"If it is a mask: mask after this operation, or with a large finite value. If not: why does {scene.source} "
        "write an infinity?"
    )


IN_THE_LOSS: tuple[Pattern, ...] = (
    Pattern(
        "masked-value-in-the-loss", frozenset(), lambda at: at.item.legal,
        say("the infinity that this line writes reaches the loss"),
        say("Leave masked elements out of the loss, or mask with a large finite value; if it is no mask: why inf?"),
    ),
)  # fmt: skip
"""One that reaches the loss itself."""
PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "written", _WRITERS, lambda at: bool(_written(at)) and at.from_finite,
        lambda at: f"the line itself writes {_written(at)}",
        say("Leave such elements out (index, or torch.where on what reads them) rather than mark them so."),
    ),
    Pattern(
        "infinite-number", frozenset(), lambda at: bool(_written(at)) and at.from_finite,
        lambda at: f"the line brings the number {_written(at)} in",
        say("Where does that number come from? Use a large finite one, or leave such elements out."),
    ),
    Pattern(
        "infinity-consumed", frozenset(), lambda at: bool(at.item.parents),
        lambda at: f"the infinity of {at.source} met an operation that cannot digest it",
        _infinity_fix,
    ),
)  # fmt: skip
"""The particular before the general."""
