"""All operations for people: what ``nanhunt op`` tells, and the rules of all in its order."""

from __future__ import annotations

from nanhunt.operations.cross_entropy import description as cross_entropy
from nanhunt.operations.description import Description
from nanhunt.operations.difference import description as difference
from nanhunt.operations.operation import Operation
from nanhunt.operations.registry import OPERATIONS
from nanhunt.operations.values import description as values


def described() -> dict[str, Description]:
    """All operations for people, those that need no --op first."""
    known = [
        cross_entropy.describe(), values.describe(), *map(_describe, OPERATIONS.values()), difference.describe(),
    ]  # fmt: skip
    return {each.name: each for each in known}


def _describe(operation: Operation) -> Description:
    return Description(
        name=operation.name,
        what=operation.what,
        tensors={
            role.name: role.what if role.required else f"{role.what}, optional" for role in operation.roles
        },
        kind=operation.options,
        forms={name: (form.__doc__ or "").split("\n")[0] for name, form in operation.forms.items()},
        rules=operation.rules,
    )
