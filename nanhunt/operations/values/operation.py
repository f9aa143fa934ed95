"""The check of numbers that no loss is known for, as an operation. Quick to import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container, NothingToCheck
from nanhunt.load.roles import Role
from nanhunt.load.tensor import COMPLEX, FLOATING, Tensor
from nanhunt.load.wording import printable
from nanhunt.operations.operation import Described, Example
from nanhunt.operations.options import NoOptions
from nanhunt.operations.run import Outcome, Run
from nanhunt.operations.values.rules import RULES


class HealthCheck(Described):
    """Every number is looked at for itself: there are neither rows nor ways of writing anything."""

    def judge(self, container: Container, given: Mapping[str, Tensor], run: Run) -> Iterator[Outcome]:
        """All numbers of the container. Raises NanhuntError for compare, and where nothing of it can be read."""
        from nanhunt.load.numbers import values_beside
        from nanhunt.load.reference import contents
        from nanhunt.operations.values.judge import judge_values

        if run.compares:
            raise NanhuntError("--op values has nothing to compare.", "Use `nanhunt check`.")
        floating = [tensor for tensor in container.tensors.values() if tensor.dtype in FLOATING]
        tensors = [*given.values(), *floating, *values_beside(container)]
        if not tensors and container.refused:
            raise next(iter(container.refused.values()))
        if not tensors:
            raise NothingToCheck(
                f"{printable(container.file)} holds no numbers to check.", contents(container)
            )
        return judge_values(tensors, {}, run)

    def example(self, dtype: str) -> Example:
        """One tensor, cast to ``dtype``."""
        return Example({"tensor": (1000,)}, dtype, {})


VALUES = HealthCheck(
    name="values",
    what="Weights, optimizer state and all other numbers: their health, and what a cast would lose.",
    roles=(Role("values", ".*", FLOATING + COMPLEX, what="any shape, float or complex"),),
    options=NoOptions,
    forms={},
    rules=RULES,
    looks_at_everything=True,
)
