"""Softmax cross entropy as an operation: bounds prove most rows, and only the rest is run. Quick to import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nanhunt.load.container import Container
from nanhunt.load.tensor import Tensor
from nanhunt.operations.cross_entropy.fixes import Spelling, slots
from nanhunt.operations.cross_entropy.forms import IMPLEMENTATIONS
from nanhunt.operations.cross_entropy.options import CrossEntropyOptions
from nanhunt.operations.cross_entropy.rules import RULES
from nanhunt.operations.cross_entropy.tensors import CLASS_WEIGHTS, LOGITS, TARGETS
from nanhunt.operations.operation import Described, Example
from nanhunt.operations.run import Outcome, Run


class SoftmaxCrossEntropy(Described):
    """Recognises logits by more than their names, and judges what is none of them as values."""

    def judge(self, container: Container, given: Mapping[str, Tensor], run: Run) -> Iterator[Outcome]:
        """Logits under their loss, or the softmax alone without targets; then all other numbers of the container."""
        from nanhunt.operations.cross_entropy.judge import judge

        return judge(container, given, run)

    def example(self, dtype: str) -> Example:
        """Rows of 10 classes, with labels."""
        problem = Spelling(dtype=dtype)
        shapes = {LOGITS.name: (32, problem.classes), TARGETS.name: (32,)}
        return Example(shapes, problem, slots(problem))


def _batch() -> Mapping[str, Tensor]:
    from nanhunt.operations.cross_entropy.judge import articles_batch

    return articles_batch()


CROSS_ENTROPY = SoftmaxCrossEntropy(
    name="cross-entropy",
    what="Softmax over rows of classes, and the cross entropy of it where there are targets.",
    roles=(LOGITS, TARGETS, CLASS_WEIGHTS),
    options=CrossEntropyOptions,
    forms=IMPLEMENTATIONS,
    rules=RULES,
    looks_at_everything=True,
    batch=_batch,
)
