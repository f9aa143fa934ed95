"""The comparison of two dumps, for ``nanhunt op``. Standard library only."""

from __future__ import annotations

from nanhunt.operations.description import Description
from nanhunt.operations.difference.options import DiffOptions
from nanhunt.operations.rules import of_operation


def describe() -> Description:
    """With the rules as they are in the catalogue now."""
    return Description(
        name="difference",
        what="Two dumps compared, tensor by tensor: nanhunt diff A B.",
        tensors={"a": "any shape and dtype, the reference", "b": "the same shape"},
        kind=DiffOptions,
        forms={},
        rules=of_operation("difference", targets=False),
    )
