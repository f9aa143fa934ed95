"""The cause of what one operation made: the first that holds, of all that are told apart.

``rule`` is the catalogue's, where it has one; a rule about cross entropy is named only where the tape shows a softmax.
An advice is about this operation, never about a loss that the tape does not show.
"""

from __future__ import annotations

from .backward_causes import BACKWARD
from .forward_causes import FORWARD
from .pattern import Cause
from .scene import Scene


def cause_of(scene: Scene) -> Cause:
    """Why the operation made something that is not finite."""
    patterns = BACKWARD if scene.item.node else FORWARD
    return next(pattern for pattern in patterns if pattern.matches(scene)).cause(scene)
