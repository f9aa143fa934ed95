"""Softmax cross entropy as an operation. Standard library only at the top."""

from __future__ import annotations

from nanhunt.operations.cross_entropy.forms import IMPLEMENTATIONS
from nanhunt.operations.cross_entropy.options import CrossEntropyOptions
from nanhunt.operations.cross_entropy.rules import RULES
from nanhunt.operations.cross_entropy.tensors import CLASS_WEIGHTS, LOGITS, TARGETS
from nanhunt.operations.operation import Described

CROSS_ENTROPY = Described(
    name="cross-entropy",
    what="Softmax over rows of classes, and the cross entropy of it where there are targets.",
    roles=(LOGITS, TARGETS, CLASS_WEIGHTS),
    options=CrossEntropyOptions,
    forms=IMPLEMENTATIONS,
    rules=RULES,
)
