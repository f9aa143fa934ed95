"""Logits of several steps of one run, for the pictures of how they went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nanhunt.dtypes.formats import compute_format
from nanhunt.render import severities, totals
from nanhunt.results.finding import Severity
from nanhunt.results.report import Report
from nanhunt.results.series import rank_of, step_of
from nanhunt.results.tensor import TensorReport


@dataclass(frozen=True)
class Step:
    """One dump."""

    label: str
    """The number of the step."""
    file: str
    largest: float | None
    """Largest finite logit."""
    headroom: float | None
    """How far the exp limit of the dtype lies above it; negative when it lies below."""
    bad_rows: int
    severity: Severity | None
    """The highest of its new findings."""


@dataclass(frozen=True)
class Series:
    """The dumps of one tensor in one dtype."""

    tensor: str
    dtype: str
    limit: float
    """Largest x whose exp is finite."""
    steps: tuple[Step, ...]

    @property
    def first_bad(self) -> int | None:
        """Index of the first step with an error; where there is none, with a warning."""
        first = (self._first(severity) for severity in (Severity.ERROR, Severity.WARNING))
        return next((index for index in first if index is not None), None)

    def _first(self, severity: Severity) -> int | None:
        return next((index for index, step in enumerate(self.steps) if step.severity is severity), None)


def series(report: Report) -> list[Series]:
    """Every tensor that is judged as logits at two steps of a run or more, by rank and dtype."""
    found: dict[tuple[str, ...], list[TensorReport]] = {}
    for group in totals.groups(report):
        for tensor in group:
            if tensor.role == "logits" and step_of(tensor) is not None:
                at = tensor.coordinates
                key = (tensor.tensor, tensor.dtype, tensor.origin, str(at.get("run")), rank_of(at))
                found.setdefault(key, []).append(tensor)
    return [_series(key[0], key[1], tensors) for key, tensors in sorted(found.items()) if len(tensors) > 1]


def bad_series(report: Report) -> list[Series]:
    """Those in which something goes wrong."""
    return [one for one in series(report) if one.first_bad is not None]


def _series(name: str, dtype: str, tensors: Sequence[TensorReport]) -> Series:
    limit = compute_format(dtype).exp_limit
    ordered = sorted(tensors, key=lambda tensor: step_of(tensor) or 0)
    return Series(name, dtype, limit, tuple(_step(str(step_of(tensor)), tensor, limit) for tensor in ordered))


def _step(label: str, tensor: TensorReport, limit: float) -> Step:
    largest = tensor.health.max
    headroom = None if largest is None else limit - largest
    new = [finding.severity for finding in tensor.findings if not finding.known]
    severity = max(new, key=lambda found: found.rank, default=None)
    return Step(label, tensor.file, largest, headroom, severities.bad_rows(tensor), severity)
