"""A close look at a few rows: every implementation and the truth side by side, for the reader's eyes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from nanhunt.dtypes.convert import to_torch
from nanhunt.operations.cross_entropy.confirm import Ran, cast, labels_of, run
from nanhunt.operations.cross_entropy.forms import IMPLEMENTATIONS, Labels, by_row
from nanhunt.operations.cross_entropy.job import Job
from nanhunt.operations.cross_entropy.truth import truth
from nanhunt.results.finding import Finding
from nanhunt.results.tensor import RowView, WorstRow

MOST_ROWS = 6
MOST_CLASSES = 4


def worst_rows(job: Job, findings: Sequence[Finding]) -> tuple[WorstRow, ...]:
    """The first rows of the most severe findings, one of each cause before a second of any."""
    by_severity = sorted(findings, key=lambda finding: (-finding.severity.rank, finding.code))
    causes: dict[int, str] = {}
    for turn in range(MOST_ROWS):
        for finding in by_severity:
            if turn < len(finding.rows) and len(causes) < MOST_ROWS:
                causes.setdefault(finding.rows[turn], finding.code)
    return tuple(_look(job, row, code) for row, code in sorted(causes.items()))


def _look(job: Job, row: int, code: str) -> WorstRow:
    first, block = job.around(row)
    numbers, at = np.arange(first, first + block.size // job.rows.classes), row - first
    x = cast(to_torch(block, job.tensor.dtype), job.dtype)
    labels, bad = labels_of(x, job.row_targets(numbers), job.options.temperature)
    mine = labels.by_row().only(at)
    given = None if job.targets is None or job.targets.labels is None else int(job.targets.labels[row])
    values = by_row(x)[at]
    classes = _classes(values, mine)
    top = values.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).max()
    views = [
        _view(name, run(form, x, labels, job.batch), at, classes) for name, form in IMPLEMENTATIONS.items()
    ]
    if bad[at]:
        views = [replace(view, loss=None) for view in views]
    views.append(_truth_view(job, values[None], mine, classes))
    largest = None if bool(values.isnan().all()) else float(top)
    return WorstRow(row, code, largest, given, tuple(classes), _at(values, classes), tuple(views))


def _classes(x: torch.Tensor, labels: Labels) -> list[int]:
    """The label, a class that is not finite, the largest, the smallest, and the neighbours in order."""
    shown = [] if labels.classes is None else [int(labels.classes[0])]
    odd = (~x.isfinite()).nonzero()[:1, 0].tolist()
    shown += [*odd, int(x.argmax()), int(x.argmin()), *range(len(x))[:MOST_CLASSES]]
    return list(dict.fromkeys(shown))[:MOST_CLASSES]


def _view(name: str, ran: Ran, row: int, classes: list[int]) -> RowView:
    """What one implementation made of the row with that number in the block."""
    probabilities, gradient = _at(ran.probabilities[row], classes), _at(ran.gradient[row], classes)
    return RowView(name, float(ran.losses[row]), probabilities, gradient)


def _truth_view(job: Job, x: torch.Tensor, labels: Labels, classes: list[int]) -> RowView:
    """Truth's gradient is (p - y) / N, shown where no smoothing, weights or probability targets change that."""
    options = job.batch.options
    true = float(truth(x, labels, options)[0])
    p = _at(torch.softmax(x.double() / options.temperature, -1)[0], classes)
    if labels.classes is None or options.label_smoothing or options.weights is not None:
        return RowView("truth", true, p, ())
    divisor, label = job.divisor * options.temperature, int(labels.classes[0])
    share = float(labels.kept[0]) / divisor if divisor else math.nan
    gradient = tuple((each - (index == label)) * share for each, index in zip(p, classes, strict=True))
    return RowView("truth", true, p, gradient)


def _at(values: torch.Tensor, classes: list[int]) -> tuple[float, ...]:
    return tuple(float(values[index]) for index in classes)
