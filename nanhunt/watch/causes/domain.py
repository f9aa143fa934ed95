"""What a function makes outside the domain where it is defined."""

from __future__ import annotations

import math

from nanhunt.watch.scene import Scene

from .pattern import Pattern, named, say

_DOMAINS = {
    "acos": (-1.0, 1.0), "asin": (-1.0, 1.0), "arccos": (-1.0, 1.0), "arcsin": (-1.0, 1.0), "atanh": (-1.0, 1.0),
    "arctanh": (-1.0, 1.0), "erfinv": (-1.0, 1.0), "logit": (0.0, 1.0), "acosh": (1.0, math.inf),
    "arccosh": (1.0, math.inf), "sqrt": (0.0, math.inf), "rsqrt": (0.0, math.inf),
}  # fmt: skip
_ROUNDING = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}


def _excess(scene: Scene) -> float:
    """How far the inputs lie beyond where the function is defined."""
    low, high = _DOMAINS[scene.op]
    return max(low - scene.smallest, scene.largest - high)


def _outside(scene: Scene) -> bool:
    return scene.op in _DOMAINS and scene.given is not None and _excess(scene) > 0


def _rounded_outside(scene: Scene) -> bool:
    return _outside(scene) and _excess(scene) < _ROUNDING.get(scene.dtype, 0.0) and 1.0 in _DOMAINS[scene.op]


def _domain_reason(scene: Scene) -> str:
    low, high = _DOMAINS[scene.op]
    if high == math.inf:
        return f"{scene.op} of a number below {low:g} (min {scene.smallest:.9g}) is NaN"
    reach = f"{scene.smallest:.9g} and {scene.largest:.9g}"
    return f"{scene.op} is defined on [{low:g}, {high:g}]; the inputs reach {reach}"


PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "just-outside-the-domain", frozenset(_DOMAINS), _rounded_outside,
        lambda at: f"{_domain_reason(at)}: beyond by rounding ({_excess(at):.2g})",
        say(
            "Clamp the argument a little inside: x.clamp(-1 + 1e-6, 1 - 1e-6) in float32 (at the edge itself the "
            "derivative is infinite)."
        ),
    ),
    Pattern(
        "root-of-negative", named("sqrt rsqrt"), _outside, _domain_reason,
        say("Clamp the argument at 0 before the square root."),
    ),
    Pattern(
        "outside-the-domain", frozenset(_DOMAINS), _outside, _domain_reason,
        say("Bring the argument into that range before the call."),
    ),
)  # fmt: skip
"""The particular before the general."""
