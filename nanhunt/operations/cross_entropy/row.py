"""One row in all its numbers, from which rules explain themselves.

A number is computed when a rule asks for it: a row of 1e8 classes is run forward and backward only for what needs it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from nanhunt.dtypes.convert import to_torch
from nanhunt.dtypes.formats import FORMATS, FloatFormat, compute_format
from nanhunt.operations.cross_entropy.confirm import Ran, cast, labels_of, run
from nanhunt.operations.cross_entropy.forms import IMPLEMENTATIONS, Labels, at_temperature, by_row
from nanhunt.operations.cross_entropy.job import Job
from nanhunt.operations.cross_entropy.truth import truth


@dataclass(frozen=True)
class Row:
    """One row, as the loss sees it."""

    job: Job
    number: int
    stored: torch.Tensor
    """(classes,) float64, as in the file."""
    x: torch.Tensor
    """(classes,) as cast."""
    z: torch.Tensor
    """(classes,) divided by the temperature."""
    label: int | None
    """The label, as given; None for probability targets or none."""
    block: torch.Tensor
    """As cast, in the layout that the loss is given: the row, and those that share a kernel with it."""
    targets: Labels
    """Of the rows of the block."""
    at: int
    """The row's place in the block."""

    @functools.cached_property
    def _fused(self) -> Ran:
        return run(IMPLEMENTATIONS["fused"], self.block, self.targets, self.job.batch)

    @property
    def fused_gradient(self) -> torch.Tensor:
        """(classes,): of the loss as it is reduced."""
        return self._fused.gradient[self.at]

    def loss(self, name: str) -> float:
        """What that implementation makes of the row."""
        form = IMPLEMENTATIONS[name]
        ran = self._fused if name == "fused" else run(form, self.block, self.targets, self.job.batch)
        return float(ran.losses[self.at])

    @functools.cached_property
    def true_loss(self) -> float:
        """In exact arithmetic, of the row as cast."""
        label = self.targets.by_row().only(self.at)
        return float(truth(self.x[None], label, self.job.batch.options)[0])

    @property
    def storage(self) -> FloatFormat:
        """The dtype judged in."""
        return FORMATS[self.job.dtype]

    @property
    def format(self) -> FloatFormat:
        """The dtype computed in."""
        return compute_format(self.job.dtype)

    @property
    def e(self) -> torch.Tensor:
        """exp(z), (classes,)."""
        return torch.exp(self.z)

    @property
    def wanted(self) -> torch.Tensor:
        """(classes,) float64: what the loss wants of each class, smoothed."""
        classes, targets = len(self.z), self.job.targets
        y = torch.zeros(classes, dtype=torch.float64)
        if targets is not None and targets.probabilities is not None:
            row = targets.probabilities.take(np.array([self.number]))
            y = to_torch(row, targets.probability_dtype)[0].double()
        elif self.label is not None and 0 <= self.label < classes:
            y[self.label] = 1.0
        return y * (1 - self.job.options.label_smoothing) + self.job.options.label_smoothing / classes

    def first(self, mask: torch.Tensor) -> int:
        """The first class where ``mask`` holds."""
        return int(mask.nonzero()[0])


def row_name(job: Job, number: int) -> str:
    """Says "row 7", or "row (0, 7)" where there are several leading dimensions."""
    leading = job.rows.leading
    if len(leading) < 2:
        return f"row {number}"
    return f"row ({', '.join(str(int(index)) for index in np.unravel_index(number, leading))})"


def numbers_of(job: Job, number: int) -> Row:
    """The row with that flat number, as every form sees it."""
    first, block = job.around(number)
    numbers, at = np.arange(first, first + block.size // job.rows.classes), number - first
    stored = to_torch(block, job.tensor.dtype)
    laid_out = cast(stored, job.dtype)
    labels, _ = labels_of(laid_out, job.row_targets(numbers), job.options.temperature)
    x = by_row(laid_out)[at]
    given = job.targets is not None and job.targets.labels is not None
    return Row(
        job, number, by_row(stored.float() if stored.dtype.itemsize == 1 else stored)[at].double(), x,
        at_temperature(x, job.batch.options),
        int(job.targets.labels[number]) if given and job.targets and job.targets.labels is not None else None,
        laid_out, labels, at,
    )  # fmt: skip
