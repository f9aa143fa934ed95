"""Several dumps of the same tensor in one run, in the natural order of their file names."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from nanhunt.dtypes.formats import compute_format
from nanhunt.render import phrases
from nanhunt.results.report import Report, TensorReport


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
        """Index of the first step with a bad row."""
        return next((index for index, step in enumerate(self.steps) if step.bad_rows), None)


def series(report: Report) -> list[Series]:
    """Every tensor name and dtype that at least two files hold as logits."""
    found: dict[tuple[str, str], list[TensorReport]] = {}
    for group in phrases.groups(report):
        for tensor in group:
            if tensor.role == "logits":
                found.setdefault((tensor.tensor, tensor.dtype), []).append(tensor)
    return [_series(*key, tensors) for key, tensors in sorted(found.items()) if len(tensors) > 1]


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
    return Step(label, tensor.file, largest, headroom, phrases.bad_rows(tensor))
