"""The causes met in the backward pass, by the autograd node that made the bad gradient."""

from __future__ import annotations

from nanhunt.watch.scene import Scene

from .division import divides_by_zero
from .exp import SOFTMAX
from .log import LOG_P, SIGMOID
from .pattern import Pattern, always, named, rule_fix, say


def _node(scene: Scene) -> str:
    node = (scene.item.node or "").rstrip("0123456789").removesuffix("Backward")
    return scene.called if scene.entry else node.lower()


_WHERE = "Replace the bad inputs before the operation (torch.where on its input), not its result afterwards."
_ROOT = (
    "Add a small constant inside the root, or use torch.where on the INPUT of the root (not on its result)."
)

BACKWARD: tuple[Pattern, ...] = (
    Pattern(
        "root-at-zero", named("SqrtBackward"), always, say("the derivative 1 / (2 sqrt(x)) is infinite at x = 0"),
        say(_ROOT),
    ),
    Pattern(
        "norm-at-zero", named("LinalgVectorNormBackward NormBackward CdistBackward"), always,
        say("the derivative x / |x| is 0 / 0 where the vector is 0"),
        say("Add a small constant under the root: (x * x).sum(-1).add(eps).sqrt()."),
    ),
    Pattern(
        "log-of-sigmoid", named("LogBackward Log2Backward Log10Backward Log1PBackward"),
        lambda at: "sigmoid" in at.feeders,
        say("the derivative of log is 1 / p, which overflows where the sigmoid is this small"), say(SIGMOID),
    ),
    Pattern(
        "reciprocal-overflow", named("LogBackward Log2Backward Log10Backward"), lambda at: at.softmax is not None,
        say("the derivative of log is 1 / p, which overflows for a p this small"),
        rule_fix("reciprocal-overflow", LOG_P), is_rule=True,
    ),
    Pattern(
        "log-at-zero", named("LogBackward Log2Backward Log10Backward Log1PBackward"), divides_by_zero,
        say("the derivative 1 / x of log is infinite at x = 0, even where `where` throws the value away"),
        say(_WHERE),
    ),
    Pattern(
        "division-by-zero", named("DivBackward ReciprocalBackward"), divides_by_zero,
        say("the derivative divides by 0, even where `where` throws the value away"), say(_WHERE),
    ),
    Pattern(
        "reciprocal-overflow", named("DivBackward ReciprocalBackward"), lambda at: at.handwritten,
        say("the derivative of a quotient divides by a sum this small: it overflows"),
        rule_fix("reciprocal-overflow", SOFTMAX), is_rule=True,
    ),
    Pattern(
        "derivative-at-the-edge", named("AcosBackward AsinBackward AcoshBackward AtanhBackward"), always,
        lambda at: f"the derivative of {_node(at)} is infinite at the edge of its domain",
        say("Clamp the argument a little inside: x.clamp(-1 + 1e-6, 1 - 1e-6) in float32."),
    ),
    Pattern(
        "power-at-zero", named("PowBackward"), lambda at: any(one.zero for one in at.item.inputs),
        say("the derivative of a power below 1 is infinite at x = 0"), say(_ROOT),
    ),
    Pattern(
        "half-gradient-overflow", frozenset(), lambda at: at.half and not at.out.nan,
        lambda at: f"the gradient is larger than {at.limit:.6g}, the largest {at.dtype}",
        say("Compute this part in float32, or lower the scale of the loss."),
    ),
    Pattern(
        "gradient-not-finite", frozenset(), always, lambda at: f"the derivative is not finite here ({at.item.op})",
        say("Keep the input of this operation away from the point where its derivative is not finite."),
    ),
)  # fmt: skip
