"""The check of numbers that no loss is known for, as an operation. Standard library only at the top."""

from __future__ import annotations

from nanhunt.load.roles import Role
from nanhunt.load.tensor import COMPLEX, FLOATING
from nanhunt.operations.operation import Described
from nanhunt.operations.options import NoOptions
from nanhunt.operations.values.rules import RULES

VALUES = Described(
    name="values",
    what="Weights, optimizer state and all other numbers: their health, and what a cast would lose.",
    roles=(Role("values", ".*", FLOATING + COMPLEX, what="any shape, float or complex"),),
    options=NoOptions,
    forms={},
    rules=RULES,
)
