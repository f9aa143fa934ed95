"""How far a scaled cast to float8 moves the loss: in exact arithmetic, of the logits as stored and as read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nanhunt.load.tensor import Tensor
from nanhunt.operations.cross_entropy.job import Job

Floats = npt.NDArray[np.float64]
_VALUES = 1 << 18
"""Of a block, in both tensors."""


def moved(job: Job, stored: Tensor) -> str:
    """What the cast does to the losses of ``job``, whose logits are those of ``stored`` read back, in a sentence.

    Over the rows that count and whose loss is finite both ways; "" without labels, or where there is no such row.
    """
    if job.targets is None:
        return ""
    count, sums, farthest = 0, np.zeros(2), (0.0, 0)
    for first, kept, before, after in _losses(job, replace(job, tensor=stored)):
        sound = kept & np.isfinite(before) & np.isfinite(after)
        count += int(np.count_nonzero(sound))
        sums += before[sound].sum(), after[sound].sum()
        change = np.zeros(len(sound))
        change[sound] = np.abs(after[sound] - before[sound])
        row = int(change.argmax())
        farthest = max(farthest, (float(change[row]), -(first + row)))  # the first of equals
    if not count:
        return ""
    before_mean, after_mean = sums / count
    over = "" if count == job.kept else f" over the {count:,} rows where it is finite"
    return (
        f"that moves the true mean row loss from {before_mean:.6g} to {after_mean:.6g}{over}, "
        f"that of row {-farthest[1]:,} by {farthest[0]:.3g}"
    )


def _losses(job: Job, before: Job) -> Iterator[tuple[int, npt.NDArray[np.bool_], Floats, Floats]]:
    """(first row, which rows count, their losses before, after) of every block."""
    assert job.targets is not None
    for first, last in job.ranges(_VALUES):
        kept = job.targets.kept[first:last]
        yield first, kept, _true(before, first, last), _true(job, first, last)


def _true(job: Job, first: int, last: int) -> Floats:
    """The row losses of a block in float64; NaN where a label is none."""
    from nanhunt.dtypes.convert import to_torch
    from nanhunt.operations.cross_entropy.confirm import labels_of, true_losses

    logits = to_torch(job.block(first, last), job.tensor.dtype)
    labels, bad = labels_of(logits, job.row_targets(np.arange(first, last)), job.options.temperature)
    return true_losses(logits, labels, bad, job.batch.options)
