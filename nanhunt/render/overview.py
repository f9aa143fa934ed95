"""Many tensors at a glance: which are worst, and which rules hold, each with its worst tensor and its fix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nanhunt.render import phrases, totals
from nanhunt.results.finding import Finding, Severity
from nanhunt.results.report import Report
from nanhunt.results.tensor import TensorReport
from nanhunt.results.verdict import fails

WORST = 5
"""Tensors named on a first screen."""


@dataclass(frozen=True)
class RuleGroup:
    """All new findings of one rule at one severity."""

    code: str
    name: str
    severity: Severity
    members: tuple[tuple[Finding, TensorReport], ...]
    """Most rows first."""

    @property
    def worst(self) -> tuple[Finding, TensorReport]:
        """The one to be shown for all."""
        return self.members[0]

    @property
    def heading(self) -> str:
        """E.g. "exp-overflow (NH101), warning: 4,800 rows of 1,200 tensors in 300 files"."""
        return f"{self.name} ({self.code}), {self.severity}: {self.told}"

    @property
    def told(self) -> str:
        """E.g. "4,800 rows of 1,200 tensors in 300 files"."""
        rows = sum(finding.count for finding, _ in self.members)
        units = {phrases.unit(tensor) for _, tensor in self.members}
        unit = units.pop() if len(units) == 1 else "row or value"
        tensors = len({_key(tensor) for _, tensor in self.members})
        files = len({(tensor.origin, tensor.file) for _, tensor in self.members})
        return f"{phrases.plural(rows, unit)} of {phrases.plural(tensors, 'tensor')} in {phrases.plural(files, 'file')}"


def worst_first(report: Report) -> list[TensorReport]:
    """Judgements with a new finding: those that fail the run, then by severity, then by the share of bad rows."""
    found = [tensor for group in totals.groups(_sick(report)) for tensor in group if _new(tensor)]
    return sorted(found, key=_badness)


@dataclass(frozen=True)
class Seen:
    """A tensor with findings, and at how many more steps of its run it has some too."""

    tensor: TensorReport
    more: int

    @property
    def more_steps(self) -> str:
        """E.g. ", and at 3 more steps"; "" for none."""
        unit = "step" if "step" in self.tensor.coordinates else "epoch"
        return f", and at {phrases.plural(self.more, f'more {unit}')}" if self.more else ""


def once_each(tensors: Iterable[TensorReport]) -> list[Seen]:
    """The same in their order, weights and optimizer state of a run where they come first: what is NaN stays NaN."""
    steps: dict[tuple[object, ...], set[object]] = {}
    first: dict[tuple[object, ...], TensorReport] = {}
    for number, tensor in enumerate(tensors):
        at = tensor.coordinates
        step = at.get("step", at.get("epoch"))
        stays = tuple(sorted((name, str(value)) for name, value in at.items() if name not in _OF_A_STEP))
        name = tensor.tensor or tensor.file.rpartition("/")[2]
        stays_bad = step is not None and at.get("phase") in ("model", "optimizer")
        key = (tensor.origin, name, tensor.judged_in, stays) if stays_bad else (number,)
        first.setdefault(key, tensor)
        steps.setdefault(key, set()).add(step)
    return [Seen(tensor, len(steps[key]) - 1) for key, tensor in first.items()]


_OF_A_STEP = ("step", "epoch", "path", "order", "micro")
"""Coordinates that are others when a step is another."""


def sick_tensors(report: Report) -> int:
    """Tensors with a finding in any dtype."""
    return len({_key(tensor) for tensor in report.tensors if tensor.findings})


def by_rule(report: Report) -> list[RuleGroup]:
    """Gravest first, then by rows."""
    found: dict[tuple[str, str, Severity], list[tuple[Finding, TensorReport]]] = {}
    for group in totals.groups(_sick(report)):
        for tensor in group:
            for finding in _new(tensor):
                found.setdefault((finding.code, finding.name, finding.severity), []).append((finding, tensor))
    groups = [
        RuleGroup(*key, tuple(sorted(members, key=lambda member: -member[0].count)))
        for key, members in found.items()
    ]
    return sorted(
        groups, key=lambda each: (-each.severity.rank, -sum(f.count for f, _ in each.members), each.code)
    )


def headline(report: Report) -> str:
    """E.g. "300 of 312 tensors have findings: 12 errors, 400 warnings."."""
    tensors, _ = totals.tensors_and_files(report)
    counts = totals.severity_counts(report).items()
    found = ", ".join(phrases.plural(number, severity) for severity, number in counts if number)
    sick = sick_tensors(report)
    return f"{phrases.count(sick)} of {phrases.plural(tensors, 'tensor')} have findings: {found or 'nothing new'}."


def worst_word(tensors: Sequence[TensorReport]) -> Severity | None:
    """The highest severity of a new finding among them."""
    new = [finding.severity for tensor in tensors for finding in _new(tensor)]
    return max(new, key=lambda each: each.rank, default=None)


def _sick(report: Report) -> Report:
    return replace(report, tensors=tuple(tensor for tensor in report.tensors if tensor.findings))


def _new(tensor: TensorReport) -> list[Finding]:
    return [finding for finding in tensor.findings if not finding.known]


def _key(tensor: TensorReport) -> tuple[str, str, str]:
    return (tensor.origin, tensor.file, tensor.tensor)


def _badness(tensor: TensorReport) -> tuple[bool, int, float]:
    new = _new(tensor)
    severity = max(finding.severity.rank for finding in new)
    share = max(finding.count for finding in new if finding.severity.rank == severity)
    failing = any(fails(finding, tensor) for finding in new)
    return (not failing, -severity, -share / max(phrases.units(tensor), 1))
