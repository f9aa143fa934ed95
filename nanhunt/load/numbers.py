"""Numbers that are neither logits nor labels: complex tensors, and plain Python numbers beside tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nanhunt.load.container import Container
from nanhunt.load.source import Source
from nanhunt.load.tensor import COMPLEX, FLOATING, Tensor, as_real

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


def settings_of(content: object) -> dict[str, float]:
    """Python's own numbers under text keys of the outermost dict; {} of anything else.

    Whole ones that no tensor holds are left out: nothing that counts or weighs is that large.
    """
    items = content.items() if isinstance(content, Mapping) else ()
    numbers = {key: each for key, each in items if isinstance(key, str) and isinstance(each, int | float)}
    return {key: each for key, each in numbers.items() if isinstance(each, float) or abs(each) < 1 << 63}


def values_beside(container: Container) -> tuple[Tensor, ...]:
    """What holds numbers and can be neither logits nor labels: complex tensors, plain Python numbers."""
    complex_ = [as_real(tensor) for tensor in container.tensors.values() if tensor.dtype in COMPLEX]
    others = bool(complex_) or any(tensor.dtype in FLOATING for tensor in container.tensors.values())
    # Finite Python numbers are worth a word only where nothing else was looked at.
    numbers = [tensor for name, tensor in container.numbers.items() if name != PLAIN or not others]
    complex_ += [as_real(tensor) for tensor in numbers if tensor.dtype in COMPLEX]
    return (*complex_, *(tensor for tensor in numbers if tensor.dtype in FLOATING))


def _tensor(source: Source, name: str, values: list[float], single: bool) -> Tensor:
    data = np.array(values[0] if single else values, np.float64)
    return Tensor(source.file, name, "float64", data.shape, lambda: data)
