"""The comparison of two dumps, as an operation that people are told of. Standard library only."""

from __future__ import annotations

from nanhunt.load.roles import Role
from nanhunt.load.tensor import COMPLEX, FLOATING, INTEGER
from nanhunt.operations.difference.options import DiffOptions
from nanhunt.operations.difference.rules import RULES
from nanhunt.operations.operation import Described

_ANY = FLOATING + INTEGER + COMPLEX
DIFFERENCE = Described(
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
