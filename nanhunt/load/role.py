"""What an operation calls its tensors, and by which names they are found in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["float", "integer", "any"]


@dataclass(frozen=True)
class Role:
    """One tensor of an operation; its name is the variable that printed code uses for it."""

    name: str
    """E.g. "logits"."""
    what: str
    """Shape and meaning: "(..., classes): scores before the softmax"."""
    names: str
    """Regular expression for the innermost part of a tensor's name, in lower case and without a trailing number."""
    kind: Kind = "float"
    optional: bool = False
    gradient: Literal["", "unit", "group"] = ""
    """Whether a gradient reaches it: none, one that belongs to each unit (row, value), or one that all units of a
    group share, as the keys of an attention head are shared by its queries."""
    cast: bool = True
    """Whether a float tensor is converted to the dtype that is judged; labels of a loss are, an index is not."""
