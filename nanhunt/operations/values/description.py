"""The check of numbers that no loss is known for. Standard library only."""

from __future__ import annotations

from nanhunt.operations.description import Description
from nanhunt.operations.rules import of_operation


def describe() -> Description:
    """With the rules as they are in the catalogue now."""
    return Description(
        name="values",
        what="Weights, optimizer state and all other numbers: their health, and what a cast would lose.",
        tensors={"values": "any shape, float or complex"},
        kind=None,
        forms={},
        rules=of_operation("values", targets=False),
    )
