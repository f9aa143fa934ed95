"""What finite numbers make that are too large for their dtype."""

from __future__ import annotations

from nanhunt.watch.scene import Scene

from .pattern import Pattern, always, grown_to, named, say

WIDE = (
    "Do it in float32: on .float() inputs, under autocast also inside torch.autocast(device, enabled=False)."
)
_PRODUCT = (
    "Multiply .float() inputs (they are half already: under autocast inside torch.autocast(device, enabled=False) as "
    "well), or scale a factor down before the product."
)
_CLIP = "Lower the learning rate (or warm it up), or clip the gradients: training had diverged before it overflowed."


def _cast(scene: Scene) -> bool:
    return scene.given is not None and scene.given.finite and scene.given.dtype != scene.out.dtype


def _cast_reason(scene: Scene) -> str:
    assert scene.given is not None
    return f"|{_size(scene):.6g}| in {scene.given.dtype} > {scene.limit:.6g}, the largest {scene.dtype}"


def _product_reason(scene: Scene) -> str:
    return f"products of finite {scene.dtype} values add up past {scene.limit:.6g}, the largest {scene.dtype}"


def _size(scene: Scene) -> float:
    return max(abs(scene.largest), abs(scene.smallest))


def _overflow_reason(scene: Scene) -> str:
    return f"the result is larger than {scene.limit:.6g}, the largest {scene.dtype}"


def _overflows(scene: Scene) -> bool:
    return scene.from_finite and not scene.out.nan


def _diverges(scene: Scene) -> bool:
    return _overflows(scene) and scene.diverged


OF_CALLS: tuple[Pattern, ...] = (
    Pattern(
        "cast-overflow", named("to_copy to copy half bfloat16 float type"), _cast, _cast_reason,
        say("Keep this tensor in float32 or bfloat16, or scale it down before the cast."), is_rule=True,
    ),
    Pattern(
        "half-product-overflow", named("mm bmm matmul addmm baddbmm linear convolution einsum"),
        lambda at: at.half and at.from_finite, _product_reason, say(_PRODUCT),
    ),
    Pattern(
        "norm-overflow", named("layer_norm batch_norm group_norm rms_norm"),
        lambda at: at.from_finite and _size(at) ** 2 > at.limit,
        lambda at: f"the squares of values up to {_size(at):.6g} overflow {at.dtype}, so the variance is inf",
        lambda at: f"Find out why the values grew{grown_to(at, _size(at))} before this normalisation.",
    ),
)  # fmt: skip
"""Of operations that are known."""
OF_ANY: tuple[Pattern, ...] = (
    Pattern("overflow", frozenset(), lambda at: _overflows(at) and at.half, _overflow_reason, say(WIDE)),
    Pattern("overflow", frozenset(), _diverges, _overflow_reason, say(_CLIP)),
    Pattern(
        "overflow", frozenset(), _overflows, _overflow_reason,
        lambda at: f"Scale the inputs down, or find out why they grew{grown_to(at, _size(at))}.",
    ),
    Pattern(
        "undefined-operation", frozenset(), always,
        say("NaN from finite inputs: the operation is not defined for some of them"), say(""),
    ),
)  # fmt: skip
"""Of any operation: what is left."""
