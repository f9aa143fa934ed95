"""What a logarithm makes, and the poles of lgamma."""

from __future__ import annotations

from nanhunt.watch.scene import Scene

from .pattern import Pattern, named, rule_fix, say, zeros

_LOGS = named("log log2 log10 log1p")
EPS = "Use an eps the dtype can hold (1e-4 in float16), or do this in float32."
LOG_P = "Compute log p by F.log_softmax of what the softmax was given: it never forms p. The rest of the formula stays."
SIGMOID = (
    "Use F.logsigmoid(x) for log(sigmoid(x)) and F.logsigmoid(-x) for log(1 - sigmoid(x)), or "
    "F.binary_cross_entropy_with_logits(x, y), with x what the sigmoid was given."
)
_LOG1P = "Where this is log(1 - exp(x)), write torch.log(-torch.expm1(x)): it is exact for x near 0."
_UNMASK = "Replace log p by 0 at the masked classes before multiplying: log_p.masked_fill(p == 0, 0)."
_CLAMP_LOG = "Keep the argument of log away from 0, or compute the logarithm directly (log_softmax, log1p, logsigmoid)."


def _edge(scene: Scene) -> float:
    return -1.0 if scene.op == "log1p" else 0.0


def _log_below(scene: Scene) -> bool:
    return scene.given is not None and scene.given.min is not None and scene.given.min < _edge(scene)


def _log_below_reason(scene: Scene) -> str:
    edge = "a negative number" if scene.op != "log1p" else "a number below -1"
    return f"{scene.op} of {edge} (min {scene.smallest:.6g}) is NaN"


def _log_at_edge(scene: Scene) -> bool:
    return scene.given is not None and scene.given.min == _edge(scene)


def _log_zero_reason(scene: Scene) -> str:
    given = scene.given
    if given is None or scene.op == "log1p":
        return "log1p of -1 is -inf"
    return f"{scene.op} of 0 is -inf: {zeros(given, 'inputs')}"


def _log_sigmoid(scene: Scene) -> bool:
    return _log_at_edge(scene) and "sigmoid" in scene.feeders


def _log_softmax(scene: Scene) -> bool:
    return _log_at_edge(scene) and scene.softmax is not None


def _log_masked_softmax(scene: Scene) -> bool:
    return _log_softmax(scene) and scene.masked


PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "log-of-negative", _LOGS, _log_below, _log_below_reason,
        say("Keep the argument positive: what is it meant to be, and how did it become negative?"),
    ),
    Pattern(
        "log-of-zero", _LOGS, lambda at: _log_at_edge(at) and at.lost_eps is not None,
        lambda at: f"{_log_zero_reason(at)}, since {at.lost_eps:g} is 0 in {at.dtype}", say(EPS),
    ),
    Pattern(
        "log-of-sigmoid", _LOGS, _log_sigmoid,
        lambda at: f"{_log_zero_reason(at)}: a sigmoid has rounded to 0, or to 1 where this is 1 - sigmoid",
        say(SIGMOID),
    ),
    Pattern(
        "log-of-masked", _LOGS, _log_masked_softmax,
        lambda at: f"{_log_zero_reason(at)}; masked classes have probability 0", say(_UNMASK),
    ),
    Pattern(
        "probability-underflow", _LOGS, _log_softmax,
        lambda at: f"{_log_zero_reason(at)}, a probability that underflowed in {at.dtype}",
        rule_fix("probability-underflow", LOG_P), is_rule=True,
    ),
    Pattern("log-of-zero", named("log1p"), _log_at_edge, _log_zero_reason, say(_LOG1P)),
    Pattern("log-of-zero", _LOGS, _log_at_edge, _log_zero_reason, say(_CLAMP_LOG)),
    Pattern(
        "gamma-pole", named("lgamma digamma polygamma"), lambda at: at.from_finite and at.smallest <= 0,
        lambda at: f"{at.op} is not finite at 0 and at the negative integers (min {at.smallest:.6g})",
        say("Keep its argument above 0: softplus(x) + 1e-3 rather than relu(x), or a clamp."),
    ),
)  # fmt: skip
"""The particular before the general."""
