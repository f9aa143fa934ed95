"""Several dumps of the same tensor in one run, in the natural order of their file names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nanhunt.dtypes.formats import compute_format
from nanhunt.render import phrases
from nanhunt.results.report import Report, Severity, TensorReport


@dataclass(frozen=True)
class Step:
    """One dump."""

    label: str
    """What sets its file name apart from the others'."""
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

    @property
    def sentence(self) -> str:
        """E.g. "By step: the first warning at step-9.npz, the first error at step-12.npz (12 steps)."."""
        warning, error = self._first(Severity.WARNING), self._first(Severity.ERROR)
        found = [("warning", warning)] if warning is not None and (error is None or warning < error) else []
        found += [("error", error)] if error is not None else []
        if not found:
            return f"None of {phrases.count(len(self.steps))} steps has an error or a warning."
        places = [f"the first {what} at {self.steps[at].file}" for what, at in found]
        return f"By step: {', '.join(places)} ({phrases.count(len(self.steps))} steps)."

    def _first(self, severity: Severity) -> int | None:
        return next((index for index, step in enumerate(self.steps) if step.severity is severity), None)


def series(report: Report) -> list[Series]:
    """Every tensor that at least two files hold as logits whose names differ in the number of the step alone."""
    found: dict[tuple[str, ...], list[TensorReport]] = {}
    for group in phrases.groups(report):
        for tensor in group:
            if tensor.role == "logits":
                key = (tensor.tensor, tensor.dtype, tensor.origin, _NUMBER.sub("#", tensor.file))
                found.setdefault(key, []).append(tensor)
    families = [family for _, tensors in sorted(found.items()) for family in _families(tensors)]
    return [_series(family[0].tensor, family[0].dtype, family) for family in families if len(family) > 1]


_NUMBER = re.compile("[0-9]+")
_STEP = re.compile("(step|checkpoint|iter|iteration|epoch)[-_=.]?$", re.IGNORECASE)


def _families(tensors: Sequence[TensorReport]) -> list[list[TensorReport]]:
    """Files alike but for numbers: one family for each choice of all numbers but the step's.

    The step is the only number that differs, or the last of those that differ which is called one: the rank of
    ``rank-3/step-10.npy`` is none. Files of which that cannot be said are no steps.
    """
    numbers = [_NUMBER.findall(tensor.file) for tensor in tensors]
    varying = [place for place, column in enumerate(zip(*numbers, strict=True)) if len(set(column)) > 1]
    before = _NUMBER.split(tensors[0].file)
    named = [place for place in varying if _STEP.search(before[place])]
    if len(varying) > 1 and not named:
        return []
    step = (named or varying or [0])[-1]
    found: dict[tuple[str, ...], list[TensorReport]] = {}
    for tensor, own in zip(tensors, numbers, strict=True):
        found.setdefault((*own[:step], *own[step + 1 :]), []).append(tensor)
    return list(found.values())


def _series(name: str, dtype: str, tensors: Sequence[TensorReport]) -> Series:
    files = [tensor.file for tensor in tensors]
    labels = _distinct(files)
    limit = compute_format(dtype).exp_limit
    dumps = [_step(label, tensor, limit) for label, tensor in zip(labels, tensors, strict=True)]
    return Series(name, dtype, limit, tuple(dumps))


def _distinct(names: Sequence[str]) -> list[str]:
    """The names without what they begin and end with alike; a number is never cut in two."""
    start = _alike(names)
    end = _alike([name[start:][::-1] for name in names])
    return [name[start : len(name) - end] or name for name in names]


def _alike(names: Sequence[str]) -> int:
    letters = zip(*names, strict=False)
    alike = "".join(
        column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, letters)
    )
    return len(alike.rstrip("0123456789"))


def _step(label: str, tensor: TensorReport, limit: float) -> Step:
    largest = tensor.health.max
    headroom = None if largest is None else limit - largest
    new = [finding.severity for finding in tensor.findings if not finding.known]
    severity = max(new, key=lambda found: found.rank, default=None)
    return Step(label, tensor.file, largest, headroom, phrases.bad_rows(tensor), severity)
