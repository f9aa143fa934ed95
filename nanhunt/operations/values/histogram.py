"""Values by power of two."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nanhunt.dtypes.convert import Array, to_floats
from nanhunt.load.rows import RowSource
from nanhunt.results.tensor import Histogram

MOST_VALUES = 1 << 18
"""More values than this are sampled: evenly spaced runs of rows, so that a large file costs no more than this."""
_RUNS = 64


def histogram(rows: RowSource, dtype: str) -> Histogram:
    """Counts by floor(log2 |x|) over all values, or over a sample of them when there are many."""
    total = rows.count * rows.classes
    sample = np.concatenate([part.reshape(-1) for part in _parts(rows)]) if total else np.zeros(0)
    values = to_floats(sample, dtype) if total else sample
    finite = values[np.isfinite(values)]
    nonzero = finite[finite != 0]
    exponents = np.frexp(nonzero)[1] - 1
    first = int(exponents.min()) if exponents.size else 0
    bins = int(exponents.max()) - first + 1 if exponents.size else 0
    positive = np.bincount(exponents[nonzero > 0] - first, minlength=bins)
    negative = np.bincount(exponents[nonzero < 0] - first, minlength=bins)
    return Histogram(
        first, tuple(int(n) for n in positive), tuple(int(n) for n in negative),
        int(finite.size - nonzero.size), int(values.size - finite.size), int(values.size), total,
    )  # fmt: skip


def _parts(rows: RowSource) -> Iterator[Array]:
    if rows.count * rows.classes <= MOST_VALUES:
        yield rows.range(0, rows.count)
        return
    columns = min(rows.classes, MOST_VALUES // _RUNS)
    length = max(1, MOST_VALUES // _RUNS // columns)
    for first in np.linspace(0, max(0, rows.count - length), min(_RUNS, rows.count)).astype(int):
        yield rows.range(int(first), min(int(first) + length, rows.count))[:, :columns]
