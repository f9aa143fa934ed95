"""The comparison of two dumps, as an operation that people are told of. Quick to import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nanhunt.difference.options import DiffOptions
from nanhunt.difference.rules import RULES
from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container
from nanhunt.load.roles import Role
from nanhunt.load.tensor import COMPLEX, FLOATING, INTEGER, Tensor
from nanhunt.operations.operation import Described
from nanhunt.operations.run import Outcome, Run

_ANY = FLOATING + INTEGER + COMPLEX


class TwoDumps(Described):
    """It takes two inputs, so that one alone cannot be judged as it."""

    def judge(self, container: Container, given: Mapping[str, Tensor], run: Run) -> Iterator[Outcome]:
        """Raises NanhuntError: --op is about one input."""
        raise NanhuntError("--op difference needs two inputs.", "Use `nanhunt diff A B`.")


DIFFERENCE = TwoDumps(
    name="difference",
    what="Two dumps compared, tensor by tensor: `nanhunt diff A B`.",
    roles=(
        Role("a", ".*", _ANY, what="any shape, the reference"),
        Role("b", ".*", _ANY, what="the same shape, in any dtype"),
    ),
    options=DiffOptions,
    forms={},
    rules=RULES,
)
