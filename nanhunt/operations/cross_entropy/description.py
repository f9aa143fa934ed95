"""Softmax cross entropy explained. Standard library only."""

from __future__ import annotations

from nanhunt.operations.cross_entropy.options import CrossEntropyOptions
from nanhunt.operations.description import Description
from nanhunt.operations.rules import of_operation


def describe() -> Description:
    """With the rules as they are in the catalogue now."""
    return Description(
        name="cross-entropy",
        what="Softmax over rows of classes, and the cross entropy of it where there are targets.",
        tensors={
            "logits": "(..., classes) float: scores before the softmax; --class-axis where classes are not last",
            "targets": "the logits' shape without classes: integer labels; or probabilities of the logits' shape",
            "class weights": "(classes,) float, optional",
        },
        kind=CrossEntropyOptions,
        forms={
            "naive": "e = exp(x); p = e / e.sum(1); loss_i = -log(p[i, t_i])",
            "log-of-softmax": "p = torch.softmax(x, 1); loss_i = -log(p[i, t_i])",
            "logsumexp": "m = max; loss_i = m + log(sum(exp(x - m))) - x_t",
            "fused": "F.cross_entropy(x, t)",
        },
        rules=of_operation("cross-entropy", targets=True),
    )
