"""Python numbers beside tensors: looked at, and shown where one is not finite or where nothing else is there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nanhunt.load.source import Source
from nanhunt.load.tensor import Tensor

PLAIN = "(plain numbers)"
"""Of all those that are finite."""
MOST = 1000
"""Places of numbers that are not finite, told one by one; the rest joins the others."""


def plain_numbers(source: Source, found: Sequence[tuple[tuple[str, ...], list[float]]]) -> dict[str, Tensor]:
    """A tensor of its own for each number, or list of numbers, that is not finite; one for all the others."""
    bad = [(path, values) for path, values in found if not all(map(math.isfinite, values))][:MOST]
    names = {".".join(path) for path, _ in bad}
    rest = [value for path, values in found if ".".join(path) not in names for value in values]
    tensors = {
        ".".join(path): _tensor(source, ".".join(path), values, len(values) == 1) for path, values in bad
    }
    return tensors | ({PLAIN: _tensor(source, PLAIN, rest, single=False)} if rest else {})


def _tensor(source: Source, name: str, values: list[float], single: bool) -> Tensor:
    data = np.array(values[0] if single else values, np.float64)
    return Tensor(source.file, name, "float64", data.shape, lambda: data)
