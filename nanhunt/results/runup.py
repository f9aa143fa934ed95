"""How it came: what grows over the steps of a run, how fast, and about when it leaves its format.

A curve is the largest finite magnitude of one layer's tensors by step, all ranks together: enough to see a run-up,
and small enough to be kept of tensors that are only counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.results.counted import Cell, bits_of, cells_of
from nanhunt.results.finding import Severity
from nanhunt.results.order import natural_key
from nanhunt.results.report import Report

LEAST_POINTS = 4
"""For a growth to be told from noise."""
_SURE = 2.0
"""Standard errors on either side."""
_LEFT_OUT = ("optimizer", "counter")
_AHEAD = 4
"""Times the steps that were seen: what lies further ahead is not foretold."""


@dataclass(frozen=True)
class Point:
    """One layer at one step."""

    step: int
    largest: float
    """Largest finite magnitude."""
    largest_of: str
    """The tensor that has it."""
    zeros: float
    """Share of all values."""
    bad: bool
    """Whether anything of it is an error at that step."""
    bits: int | None = None
    """As in ``Cell``."""


@dataclass(frozen=True)
class Growth:
    """Exponential growth, fitted to the logarithms of the last half of the points by least squares."""

    doubling: float
    """In steps."""
    crossing: float
    """The step at which it would reach the limit."""
    earliest: float
    """With the slope two standard errors steeper."""
    latest: float | None
    """With the slope two standard errors flatter; None: it may as well not grow."""


@dataclass(frozen=True)
class Curve:
    """One layer's tensors of one phase in one dtype."""

    phase: str
    layer: int | None
    dtype: str
    role: str
    limit: float
    """The largest number of the dtype; for logits the largest whose exp is finite."""
    points: tuple[Point, ...]
    """By step."""

    @cached_property
    def healthy(self) -> tuple[Point, ...]:
        """Those before the first bad one."""
        bad = next((at for at, point in enumerate(self.points) if point.bad), len(self.points))
        return self.points[:bad]

    @cached_property
    def growth(self) -> Growth | None:
        """None where it does not grow beyond doubt, has not doubled, or would take long to reach the limit."""
        points = [point for point in self.healthy if point.largest > 0]
        points = points[-max(LEAST_POINTS, len(points) // 2) :]
        if len(points) < LEAST_POINTS or points[-1].largest < 2 * points[0].largest:
            return None
        found = _fitted(
            [point.step for point in points], [math.log2(point.largest) for point in points], self.limit
        )
        first, last = self.points[0].step, self.points[-1].step
        return found if found and found.crossing <= last + _AHEAD * (last - first) else None

    @property
    def stays(self) -> bool:
        """Whether it is known to be the same, bit for bit, at all steps before it is bad."""
        seen = {point.bits for point in self.healthy}
        return len(seen) == 1 and None not in seen

    @property
    def zeros_rise(self) -> float:
        """By how much the share of zeros is larger at the end than at the beginning."""
        return self.healthy[-1].zeros - self.healthy[0].zeros if self.healthy else 0.0


def _fitted(steps: Sequence[int], logs: Sequence[float], limit: float) -> Growth | None:
    """Least squares (Draper and Smith, Applied Regression Analysis, section 1.2); None for a slope that may be 0."""
    middle, level = fmean(steps), fmean(logs)
    spread = sum((step - middle) ** 2 for step in steps)
    slope = sum((step - middle) * (log - level) for step, log in zip(steps, logs, strict=True)) / spread
    left_over = sum(
        (log - level - slope * (step - middle)) ** 2 for step, log in zip(steps, logs, strict=True)
    )
    error = _SURE * math.sqrt(left_over / (len(steps) - 2) / spread)
    if slope <= error:
        return None
    ahead = math.log2(limit) - level
    return Growth(
        1 / slope, middle + ahead / slope, middle + ahead / (slope + error), middle + ahead / (slope - error)
    )


def curves(report: Report, run: str, origin: str = "") -> list[Curve]:
    """Those of one run, by phase and layer.

    Optimizer state is left out, whose counters grow by themselves, and what lies beside weights and is none (a best
    score, the number of the epoch).
    """
    bad = _bad_places(report)
    found: dict[tuple[str, int | None, str, str], _Parts] = {}
    for cell in (*report.cells, *cells_of(report.tensors)):
        at = cell.at
        step = at.get("step", at.get("epoch"))
        phase, layer = str(at.get("phase", "")), at.get("layer")
        if (at["run"], cell.origin) != (run, origin) or phase in _LEFT_OUT or not isinstance(step, int):
            continue
        key = (phase, layer if isinstance(layer, int) else None, cell.dtype, cell.role)
        found.setdefault(key, _Parts()).add(step, cell)
    made = [
        Curve(
            phase,
            layer,
            dtype,
            role,
            _limit(dtype, role),
            parts.points(bad.get((run, origin, phase, layer), set())),
        )
        for (phase, layer, dtype, role), parts in found.items()
    ]
    if any(curve.phase == "model" for curve in made):
        made = [curve for curve in made if curve.phase]
    return sorted(
        made, key=lambda each: (each.phase, each.layer is None, each.layer or 0, natural_key(each.dtype))
    )


def _limit(dtype: str, role: str) -> float:
    return compute_format(dtype).exp_limit if role == "logits" else FORMATS[dtype].max


Place = tuple[object, ...]


def _bad_places(report: Report) -> dict[Place, set[int]]:
    """Steps at which a layer has an error, by run, origin, phase and layer."""
    found: dict[Place, set[int]] = {}
    for tensor in report.tensors:
        at = tensor.coordinates
        step = at.get("step", at.get("epoch"))
        if isinstance(step, int) and any(each.severity is Severity.ERROR for each in tensor.findings):
            key = (at.get("run"), tensor.origin, str(at.get("phase", "")), at.get("layer"))
            found.setdefault(key, set()).add(step)
    return found


@dataclass
class _Parts:
    """A curve while it is put together."""

    steps: dict[int, list[Cell]] = field(default_factory=dict)

    def add(self, step: int, cell: Cell) -> None:
        """One more cell of it."""
        self.steps.setdefault(step, []).append(cell)

    def points(self, bad: Iterable[int]) -> tuple[Point, ...]:
        """By step, all ranks together."""
        return tuple(_point(step, cells, step in bad) for step, cells in sorted(self.steps.items()))


def _point(step: int, cells: Sequence[Cell], bad: bool) -> Point:
    top = min(cells, key=lambda cell: (-(cell.largest or 0), cell.largest_of))
    values = sum(cell.values for cell in cells)
    zeros = sum(cell.zeros for cell in cells)
    share = zeros / values if values else 0.0
    return Point(step, top.largest or 0.0, top.largest_of, share, bad, bits_of(*cells))
