"""The cause of what one operation made: the first that holds, of all that are told apart.

``rule`` is the catalogue's, where it has one; a rule about cross entropy is named only where the tape shows a softmax.
An advice is about this operation, never about a loss that the tape does not show.
"""

from __future__ import annotations

from nanhunt.watch.scene import Scene

from . import division, domain, exp, infinity, log, loss, overflow, reduction
from .backward import BACKWARD
from .pattern import Cause, Pattern

FORWARD: tuple[Pattern, ...] = (
    *infinity.IN_THE_LOSS,
    *exp.PATTERNS,
    *log.PATTERNS,
    *division.PATTERNS,
    *loss.PATTERNS,
    *reduction.PATTERNS,
    *domain.PATTERNS,
    *overflow.OF_CALLS,
    *infinity.PATTERNS,
    *overflow.OF_ANY,
)
"""The particular before the general: a file for each family of operations, and what fits any of them last."""


def cause_of(scene: Scene) -> Cause:
    """Why the operation made something that is not finite."""
    patterns = BACKWARD if scene.item.node else FORWARD
    return next(pattern for pattern in patterns if pattern.matches(scene)).cause(scene)
