"""The rows that a fix is tried on, as tensors laid out as the user has them.

A small tensor is taken whole, other faulty rows replaced by sound ones. Of a large one the failing rows are taken with
two sound ones beside them, in a tensor of the same rank and class axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nanhunt.dtypes.convert import to_torch
from nanhunt.operations.cross_entropy.confirm import RowTargets, cast, labels_of
from nanhunt.operations.cross_entropy.forms import Loss
from nanhunt.operations.cross_entropy.job import Job
from nanhunt.operations.cross_entropy.options import terms_of
from nanhunt.operations.cross_entropy.truth import Question
from nanhunt.operations.rule import Rule

Numbers = npt.NDArray[np.intp]


WHOLE_VALUES = 1 << 17
"""Up to this many values the whole tensor is run, else the failing rows alone."""


MOST_VALUES = 1 << 21
"""Fixes are run on at most 1,000 failing rows, and on no more values than this."""


FEW_CLASSES = 32_752
"""Half of the largest float16: a row of more equal logits is not sound in float16."""


@dataclass(frozen=True)
class Batch:
    """Rows to run code on, as the user has them."""

    job: Job
    stored: torch.Tensor
    """(rows, classes) as in the file."""
    targets: RowTargets
    given: torch.Tensor | None
    """(rows,) int64 labels as given, or (rows, classes) probabilities."""
    failing: torch.Tensor
    """bool (rows,): the rows that must be mended; the others are sound."""
    leading: tuple[int, ...]
    """The dimensions that the rows are laid out in."""

    def laid_out(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, classes) in the user's rank, the classes in their place."""
        shaped = rows.reshape(*self.leading, rows.shape[-1])
        return shaped.movedim(-1, self.job.options.class_axis).contiguous()

    def as_rows(self, values: torch.Tensor) -> torch.Tensor:
        """The inverse."""
        return values.movedim(self.job.options.class_axis, -1).reshape(self.stored.shape)

    @property
    def shifted(self) -> bool:
        """Whether the code begins by aligning labels, which leaves the last row without one."""
        return self.job.targets is not None and self.job.targets.code != ""

    @cached_property
    def cast(self) -> torch.Tensor:
        """(rows, classes): the logits as judged."""
        return cast(self.stored, self.job.dtype)

    def tensors(self, stored: bool) -> dict[str, torch.Tensor]:
        """By role, what the code finds."""
        wide = self.stored.float() if self.stored.dtype.itemsize == 1 else self.stored
        found = {"logits": self.laid_out(wide if stored else self.cast)}
        if self.given is not None:
            probabilities = self.given.is_floating_point()
            found["targets"] = self.laid_out(self.given) if probabilities else self._labels(self.given)
        if self.job.weights is not None:
            found["weight"] = torch.from_numpy(self.job.weights.copy())
        return found

    def _labels(self, given: torch.Tensor) -> torch.Tensor:
        """Labels (rows,) in the rank that the user's have, before the line that aligns them, if any."""
        targets, rank = self.job.targets, len(self.job.tensor.shape)
        assert targets is not None
        if targets.code:
            return unaligned(targets.code, given.reshape(self.leading))
        if labelled_as_rows(self.job):
            return given.reshape(self.leading)
        if targets.shape is not None and len(targets.shape) == rank > 1:  # a class dimension of 1
            return given.reshape(self.leading).unsqueeze(self.job.options.class_axis)
        return given

    def question(self, stored: bool) -> Question:
        """What the user's own loss on these rows should be; a softmax where there is none."""
        return self._stored_question if stored else self._cast_question

    @cached_property
    def _stored_question(self) -> Question:
        return self._question(self.stored.float() if self.stored.dtype.itemsize == 1 else self.stored)

    @cached_property
    def _cast_question(self) -> Question:
        return self._question(self.cast)

    def _question(self, x: torch.Tensor) -> Question:
        job, given = self.job, self.job.options
        labels, _ = labels_of(x, self.targets, job.options.temperature)
        if labels.probabilities is not None and self.given is not None:
            labels = replace(labels, probabilities=self.given.double())
        weights = None if job.weights is None else torch.from_numpy(job.weights.copy())
        options = Loss(**terms_of(given), weights=weights)
        asks = "softmax" if job.targets is None else "loss"
        return Question(x.double(), labels, options, given.reduction, asks, job.half)

    def taken(self, rows: list[int], failing: torch.Tensor, leading: tuple[int, ...]) -> Batch:
        """Some of the rows, also several times."""
        given = None if self.given is None else self.given[rows]
        return Batch(self.job, self.stored[rows], _taken(self.targets, rows), given, failing, leading)

    def alone(self, row: int) -> Batch:
        """That row by itself."""
        return self.taken([row], self.failing[[row]], (1,) * len(self.leading))


def _taken(targets: RowTargets, rows: list[int]) -> RowTargets:
    parts = (getattr(targets, item.name) for item in fields(RowTargets))
    return RowTargets(*(None if part is None else part[rows] for part in parts))


def chosen(job: Job, rule: Rule[Any, Any, Any], numbers: tuple[int, ...], everywhere: bool) -> Batch | None:
    """The rows of ``rule`` that its fixes are tried on, with sound rows beside them; None where there are none."""
    classes = max(1, job.rows.classes)
    tried = np.array(numbers[: max(1, MOST_VALUES // classes)], dtype=np.intp)
    batch = _rows(job, tried)
    sound = rule.sound or (None if rule.input_at_fault else sound_input)
    tried = tried[sound(batch.question(stored=False)).numpy()] if sound is not None and len(tried) else tried
    if not len(tried):
        return None
    if job.rows.count * classes <= WHOLE_VALUES:
        return _whole(job, tried)
    return _part(job, tried, everywhere)


def sound_input(question: Question) -> torch.Tensor:
    """bool (rows,): whose input is not at fault. No way of writing the loss mends the others."""
    return question.x.amax(-1).isfinite() & ~question.label_masked


def unaligned(code: str, labels: torch.Tensor) -> torch.Tensor:
    """Labels of which the line ``code`` makes ``labels``: they are one longer, or lose their first.

    Raises ValueError where no labels become these.
    """
    longer = torch.nn.functional.pad(labels, (1, 0))
    for given in (longer, longer[..., :-1]):
        scope: dict[str, Any] = {"torch": torch, "F": torch.nn.functional, "targets": given}
        exec(code, scope)
        if scope["targets"].equal(labels):
            return given
    raise ValueError(f"nothing becomes these labels by {code}")


def labelled_as_rows(job: Job) -> bool:
    """Whether the user's labels have the shape of the rows."""
    shape = None if job.targets is None else job.targets.shape
    return shape is None or shape == tuple(job.rows.leading) or len(job.tensor.shape) == 1


def _rows(job: Job, numbers: Numbers) -> Batch:
    """The rows with those numbers, in one line of the user's rank."""
    targets = job.row_targets(numbers)
    stored = to_torch(job.rows.take(numbers), job.tensor.dtype)
    given = None if targets.labels is None else torch.from_numpy(targets.labels.astype(np.int64))
    given = targets.probabilities if given is None else given
    return Batch(
        job, stored, targets, given, torch.ones(len(numbers), dtype=torch.bool), _line(job, len(numbers))
    )


def _line(job: Job, rows: int) -> tuple[int, ...]:
    """Leading dimensions for some rows: (rows,), (1, rows), ...; () for the one row of a vector."""
    count = len(job.tensor.shape) - 1
    return (*(1,) * (count - 1), rows) if count else ()


def _whole(job: Job, tried: Numbers) -> Batch:
    """The tensor itself, but for rows that would fail whatever one does to the rows in question."""
    batch = _rows(job, np.arange(job.rows.count))
    failing = torch.zeros(job.rows.count, dtype=torch.bool)
    failing[torch.from_numpy(tried)] = True
    question = batch.question(stored=False)
    fine = sound_input(question) & _answered(question)
    if batch.targets.bad is not None:
        fine &= ~torch.from_numpy(batch.targets.bad)
    batch = replace(batch, failing=failing, leading=tuple(job.rows.leading))
    spoilt = ~(fine | failing)
    ignored = (
        torch.zeros_like(spoilt) if batch.targets.ignored is None else torch.from_numpy(batch.targets.ignored)
    )
    return _replaced(batch, spoilt, spoilt & ~ignored)  # what is ignored does not begin to count


def _answered(question: Question) -> torch.Tensor:
    """bool (rows,): rows whose loss and gradient are finite in F.cross_entropy, in exact arithmetic.

    With probability targets it multiplies 0 by -inf at a masked class.
    """
    alone = replace(question, reduction="sum")
    rows = alone.gradient.isfinite().all(-1)
    masked = question.x == -math.inf
    if question.labels.classes is not None:
        masked &= alone.wanted != 0
    return rows & ~masked.any(-1)


def _part(job: Job, tried: Numbers, everywhere: bool) -> Batch:
    """The rows in question, and two sound ones where the user's tensor may have some."""
    batch = _rows(job, tried)
    alone = everywhere and not batch.shifted
    if alone or not batch.leading or not job.divisor or not math.isfinite(job.divisor):
        return batch
    rows, more = len(tried), 3 if batch.shifted else 2
    beside = torch.arange(rows + more) >= rows
    batch = batch.taken([*range(rows), *[0] * more], ~beside, _line(job, rows + more))
    batch = _replaced(batch, beside, beside)
    return _last_ignored(batch) if batch.shifted else batch


def _last_ignored(batch: Batch) -> Batch:
    """The batch with the last row left out, as shifting the labels leaves it."""
    assert batch.given is not None
    last = np.arange(len(batch.given)) == len(batch.given) - 1
    given = batch.given.masked_fill(torch.from_numpy(last), batch.job.options.ignore_index)
    ignored = last if batch.targets.ignored is None else batch.targets.ignored | last
    return replace(batch, given=given, targets=RowTargets(given.numpy(), ignored, batch.targets.bad))


def _replaced(batch: Batch, rows: torch.Tensor, relabelled: torch.Tensor) -> Batch:
    """The batch with sound logits where the mask ``rows`` holds, and sound targets where ``relabelled`` does."""
    label = _sound_label(batch.job)
    if label is None or not bool(rows.any()):
        return batch
    stored = batch.stored.float() if batch.stored.dtype.itemsize == 1 else batch.stored.clone()
    stored[rows] = -8.0 if stored.shape[-1] > FEW_CLASSES else 0.0
    stored[rows, label] = 0.0
    batch = replace(batch, stored=stored.to(batch.stored.dtype))
    if batch.given is None:
        return batch
    if batch.given.is_floating_point():
        given = batch.given.float() if batch.given.dtype.itemsize == 1 else batch.given.clone()
        given[relabelled] = 1.0 / given.shape[-1]
        given = given.to(batch.given.dtype)
        return replace(batch, given=given, targets=RowTargets(probabilities=given))
    given, counts = batch.given.masked_fill(relabelled, label), ~relabelled.numpy()
    ignored, bad = (
        None if mask is None else mask & counts for mask in (batch.targets.ignored, batch.targets.bad)
    )
    return replace(batch, given=given, targets=RowTargets(given.numpy(), ignored, bad))


def _sound_label(job: Job) -> int | None:
    """A class that may be a row's label and counts; None where every class has weight 0 or less, or none."""
    weights = np.ones(job.rows.classes) if job.weights is None else job.weights
    usable = np.isfinite(weights) & (weights > 0)
    if 0 <= job.options.ignore_index < len(usable):
        usable[job.options.ignore_index] = False
    return int(np.argmax(usable)) if usable.any() else None
