"""A close look at a few rows: every implementation and the truth side by side, for the reader's eyes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from nanhunt.dtypes.convert import to_torch
from nanhunt.operations.cross_entropy.confirm import cast, labels_of, run
from nanhunt.operations.cross_entropy.forms import IMPLEMENTATIONS, Labels
from nanhunt.operations.cross_entropy.job import Job
from nanhunt.operations.cross_entropy.truth import truth
from nanhunt.results.report import Finding, RowView, WorstRow

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
    at = np.array([row])
    x = cast(to_torch(job.rows.take(at), job.tensor.dtype), job.dtype)
    labels, bad = labels_of(x, job.row_targets(at))
    given = None if job.targets is None or job.targets.labels is None else int(job.targets.labels[row])
    classes = _classes(x[0], labels)
    top = x[0].nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).max()
    views = (*_views(job, x, labels, classes, bool(bad[0])), _truth_view(job, x, labels, classes))
    largest = None if bool(x.isnan().all()) else float(top)
    return WorstRow(row, code, largest, given, tuple(classes), _at(x[0], classes), views)


def _classes(x: torch.Tensor, labels: Labels) -> list[int]:
    """The label, a class that is not finite, the largest, the smallest, and the neighbours in order."""
    shown = [] if labels.classes is None else [int(labels.classes[0])]
    odd = (~x.isfinite()).nonzero()[:1, 0].tolist()
    shown += [*odd, int(x.argmax()), int(x.argmin()), *range(len(x))[:MOST_CLASSES]]
    return list(dict.fromkeys(shown))[:MOST_CLASSES]


def _views(job: Job, x: torch.Tensor, labels: Labels, classes: list[int], bad: bool) -> list[RowView]:
    views = []
    for name, implementation in IMPLEMENTATIONS.items():
        outcome, gradient = run(implementation, x, labels, job.batch)
        loss = None if bad else float(outcome.losses[0])
        views.append(RowView(name, loss, _at(outcome.probabilities[0], classes), _at(gradient[0], classes)))
    return views


def _truth_view(job: Job, x: torch.Tensor, labels: Labels, classes: list[int]) -> RowView:
    """Truth's gradient is (p - y) / N, shown where no smoothing, weights or probability targets change that."""
    options = job.batch.options
    p = torch.softmax(x.double() / options.temperature, -1)
    true = truth(x, labels, options)
    if labels.classes is None or options.label_smoothing or options.weights is not None:
        gradient: tuple[float, ...] = ()
    else:
        y = torch.nn.functional.one_hot(labels.classes, x.shape[-1]) * labels.kept[:, None]
        share = (
            1.0 / (job.divisor * options.temperature) if job.divisor * options.temperature else float("nan")
        )
        gradient = _at(((p * labels.kept[:, None] - y) * share)[0], classes)
    return RowView("truth", float(true[0]), _at(p[0], classes), gradient)


def _at(values: torch.Tensor, classes: list[int]) -> tuple[float, ...]:
    return tuple(float(values[index]) for index in classes)
