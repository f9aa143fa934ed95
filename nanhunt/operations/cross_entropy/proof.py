"""Runs the fixes of a rule, as they are printed, on rows that the rule holds for, laid out as the user has them.

A small tensor is run whole, other faulty rows replaced by sound ones. Of a large one the failing rows are run with two
sound ones beside them, in a tensor of the same rank and class axis. Its mean divides by fewer rows than the user's, so
the loss is handed the quotient of both divisors as its upstream gradient: every row's gradient is then what it is in
the whole tensor. A reduction that overflows only over all rows is known from the pass over them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nanhunt.dtypes.convert import to_torch
from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.operations.caller import one_torch_thread
from nanhunt.operations.cross_entropy.confirm import RowTargets, cast, labels_of, rounding_bound
from nanhunt.operations.cross_entropy.fixes import Spelling, slots
from nanhunt.operations.cross_entropy.forms import Loss
from nanhunt.operations.cross_entropy.job import Job
from nanhunt.operations.cross_entropy.options import terms_of
from nanhunt.operations.cross_entropy.truth import Question
from nanhunt.operations.fix import Fix, Ran, run
from nanhunt.operations.rule import Rule
from nanhunt.results.finding import RemedyResult

Numbers = npt.NDArray[np.intp]

WHOLE_VALUES = 1 << 17
"""Up to this many values the whole tensor is run, else the failing rows alone."""
MOST_VALUES = 1 << 21
"""Fixes are run on at most 1,000 failing rows, and on no more values than this."""
ALONE = 4
"""So many failing rows are run alone, too: errors of opposite sign cannot hide in a sum of one row."""
WRONG_LOSS = 0.01
"""A loss further than this from the truth (relative; absolute below 1) is a wrong loss, beyond any rounding."""
WRONG_ROUNDINGS = 8.0
"""Nor is one wrong within so many roundings, which in bfloat16 are 3 %: the division by the temperature, log_softmax,
the product with the weight, two sums and the quotient have one each."""
WRONG_GRADIENT = 0.02
"""Likewise the largest error of a row's gradient, against that of a label with probability 0."""
FEW_CLASSES = 32_752
"""Half of the largest float16: a row of more equal logits is not sound in float16."""


@dataclass(frozen=True)
class Tried:
    """What a fix made of rows, and what it should have made."""

    loss: torch.Tensor
    """0-d, in the dtype that the code computed it in."""
    gradient: torch.Tensor
    """(rows, classes) float64."""
    true_gradient: torch.Tensor
    """(rows, classes) float64."""
    labels: torch.Tensor | None
    """(rows,): None for probability targets."""

    def at_label(self, values: torch.Tensor) -> torch.Tensor:
        """(rows,): the entries of (rows, classes) at the labels."""
        return values.amax(-1) if self.labels is None else values.gather(-1, self.labels[:, None])[:, 0]

    def outside(self, values: torch.Tensor) -> torch.Tensor:
        """(rows, classes): the same with the labels' entries 0."""
        return values if self.labels is None else values.scatter(-1, self.labels[:, None], 0.0)


@dataclass(frozen=True)
class Verdict:
    """How a fix did."""

    bad: int
    """Failing rows that are still bad."""
    outcome: str = ""
    error: float | None = None
    """Largest loss error seen."""


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
        if _as_rows(self.job):
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
        labels, _ = labels_of(x, self.targets)
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


def prove(
    job: Job, rule: Rule[Any, Any, Tried], numbers: tuple[int, ...], everywhere: bool
) -> tuple[RemedyResult, ...]:
    """Runs the fixes of ``rule`` on the rows with those numbers; those that work come first.

    ``everywhere``: the rule holds for all rows that count, so that there are no sound ones beside them.
    """
    problem = problem_of(job)
    with one_torch_thread():
        return _proven(job, rule, numbers, problem, everywhere)


def _proven(
    job: Job, rule: Rule[Any, Any, Tried], numbers: tuple[int, ...], problem: Spelling, everywhere: bool
) -> tuple[RemedyResult, ...]:
    fixes = [fix for fix in rule.fixes if fix.when(problem)]
    batch = _batch(job, rule, numbers, everywhere) if fixes else None
    if batch is None:
        return ()
    texts = slots(problem)
    align = job.targets.code + "\n" if job.targets and job.targets.code else ""
    results = [(fix, _tried(fix, rule, batch, align + fix.render(texts))) for fix in fixes]
    told = [result for fix, result in results if not (fix.tempting and result.works)]
    return tuple(sorted(told, key=lambda result: not result.works))


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


def _as_rows(job: Job) -> bool:
    """Whether the user's labels have the shape of the rows."""
    shape = None if job.targets is None else job.targets.shape
    return shape is None or shape == tuple(job.rows.leading) or len(job.tensor.shape) == 1


def problem_of(job: Job) -> Spelling:
    """What code must know of the tensors and the loss of ``job``."""
    options, targets, dimensions = job.options, job.targets, len(job.tensor.shape)
    kind = "" if targets is None else "labels" if targets.labels is not None else "probabilities"
    return Spelling(
        dimensions, options.class_axis % dimensions, job.rows.classes, job.tensor.dtype, job.dtype, kind,
        job.weights is not None and kind != "", _as_rows(job) or bool(targets and targets.code),
        targets is not None and targets.ignored is not None and bool(targets.ignored.any()),
        job.divisor == 0, options.reduction, **terms_of(options),
    )  # fmt: skip


def _tried(fix: Fix[Spelling], rule: Rule[Any, Any, Tried], batch: Batch, code: str) -> RemedyResult:
    verdict = judge(fix, rule, batch, code)
    rows = int(batch.failing.sum())
    if not verdict.bad and not fix.tempting:
        verdict = _each_alone(fix, rule, batch, code, verdict)
    works = verdict.bad == 0
    return RemedyResult(
        fix.title,
        code,
        works,
        rows,
        verdict.bad,
        verdict.error,
        verdict.outcome,
        fix.changes if works else "",
    )


def _each_alone(
    fix: Fix[Spelling], rule: Rule[Any, Any, Tried], batch: Batch, code: str, verdict: Verdict
) -> Verdict:
    """The verdict on the batch, and on its first failing rows each by itself where a row alone has a loss."""
    for row in batch.failing.nonzero()[:ALONE, 0].tolist():
        one = batch.alone(row)
        if len(batch.stored) == 1 or batch.shifted or math.isnan(_asked(fix, one).share):
            continue
        found = judge(fix, rule, one, code)
        errors = [error for error in (verdict.error, found.error) if error is not None]
        verdict = Verdict(
            verdict.bad + found.bad, verdict.outcome or found.outcome, max(errors, default=None)
        )
    return verdict


def _asked(fix: Fix[Spelling], batch: Batch) -> Question:
    question = batch.question(fix.stored)
    answered: Question = fix.reference(question) if fix.reference else question
    return answered


def judge(fix: Fix[Spelling], rule: Rule[Any, Any, Tried], batch: Batch, code: str) -> Verdict:
    """Runs ``code`` and says how many failing rows are still bad, and in what way."""
    question, rows = _asked(fix, batch), int(batch.failing.sum())
    tensors = batch.tensors(fix.stored)
    if question.asks != "loss":
        return _judge_output(question, batch, code, tensors)
    upstream = _upstream(batch.job, batch.question(fix.stored))
    ran = run(code, tensors, ["logits"], upstream)
    if ran.result is None:
        return Verdict(rows, f"raises {ran.error}")
    wanted = question.loss * fix.scale
    gradient = batch.as_rows(ran.gradients["logits"]).double()
    tried = Tried(ran.result, gradient, question.gradient * (fix.scale * upstream), question.labels.classes)
    faults = [
        *_loss_faults(ran, wanted, batch),
        *_gradient_faults(tried, question.scale * (fix.scale * upstream), tensors["logits"].dtype),
    ]
    if rule.mended is not None:
        # A row that the fix leaves out has nothing to learn.
        faults.append(("trains no better", ~rule.mended(tried) & question.labels.kept & batch.failing))
    loss = float(ran.result)
    if not (math.isfinite(loss) and math.isfinite(wanted)):
        return _verdict(faults, batch, None)
    # The last digits are those of one processor's kernels: an error within the rounding bound counts as none.
    bound = rounding_bound(wanted / fix.scale, ran.result.dtype, batch.job.rows.classes)
    error = abs(loss - wanted) / fix.scale
    return _verdict(faults, batch, error if error > bound else 0.0)


Fault = tuple[str, torch.Tensor]
"""(what is wrong, bool (rows,) or 0-d: of which rows, or of all together)."""


def _verdict(faults: Sequence[Fault], batch: Batch, error: float | None) -> Verdict:
    """The gravest fault is the outcome; a bad loss is the loss of every row."""
    by_row = torch.stack(
        [torch.as_tensor(fault).expand(len(batch.failing)) for _, fault in faults if fault.dim()]
    )
    bad = int((by_row.any(0) & batch.failing).sum())
    present = [what for what, fault in faults if bool(fault.any())]
    if not present:
        return Verdict(0, "", error)
    return Verdict(bad or int(batch.failing.sum()), present[0], error)


def _loss_faults(ran: Ran, wanted: float, batch: Batch) -> list[Fault]:
    assert ran.result is not None
    loss = ran.result.double()
    slack = max(WRONG_LOSS, WRONG_ROUNDINGS * torch.finfo(ran.result.dtype).eps / 2)
    wrong = not math.isfinite(wanted) or abs(float(loss) - wanted) > slack * max(1.0, abs(wanted))
    computed = compute_format(batch.job.dtype).name
    overflows = str(ran.result.dtype) == f"torch.{computed}" and _overflows_over_all_rows(batch)
    return [
        ("loss still NaN", loss.isnan()),
        ("loss still infinite", loss.isinf()),
        ("loss wrong over all rows", torch.tensor(overflows)),
        ("loss finite but wrong", torch.tensor(wrong)),
    ]


def _overflows_over_all_rows(batch: Batch) -> bool:
    """Whether a reduction over the whole tensor overflows in the dtype, which the rows at hand cannot show."""
    job = batch.job
    labels = job.targets is not None and job.targets.labels is not None
    many = job.half and job.options.reduction == "mean" and labels and job.kept >= FORMATS["float16"].overflow
    return len(batch.stored) < job.rows.count and (job.sum_overflows or many)


def _gradient_faults(tried: Tried, scale: torch.Tensor, dtype: torch.dtype) -> list[Fault]:
    gradient, true = tried.gradient, tried.true_gradient
    spacing = FORMATS[str(dtype).removeprefix("torch.")].smallest_subnormal
    error = (gradient - true).abs().amax(-1)
    wrong = ~(error <= WRONG_GRADIENT * scale[:, 0] + 4 * spacing)
    dead = wrong & (gradient == 0).all(-1)
    return [
        ("gradient still NaN", gradient.isnan().any(-1)),
        ("gradient still infinite", gradient.isinf().any(-1)),
        ("gradient 0", dead),
        ("gradient wrong", wrong),
    ]


def _judge_output(question: Question, batch: Batch, code: str, tensors: dict[str, torch.Tensor]) -> Verdict:
    """A softmax: its values, and what a gradient becomes that rises from class to class."""
    ramp = torch.linspace(-1, 1, question.x.shape[-1], dtype=torch.float64).expand(question.x.shape)
    ran = run(code, tensors, ["logits"], batch.laid_out(ramp))
    if ran.result is None:
        return Verdict(int(batch.failing.sum()), f"raises {ran.error}")
    output, true = batch.as_rows(ran.result).double(), question.output
    gradient, pulled = batch.as_rows(ran.gradients["logits"]).double(), question.output_gradient(ramp)
    near = WRONG_LOSS * true.abs().clamp_min(1.0)
    size = WRONG_GRADIENT * max(1.0, len(ramp[0]) / 2 if question.asks == "log_softmax" else 1.0)
    known = output == true  # a masked class has log p = -inf
    slack = (torch.tensor(size) / question.options.temperature).abs()
    bad_output = ~known & ~((output - true).abs() <= near)
    faults = [
        ("softmax still NaN", output.isnan().any(-1)),
        ("gradient still NaN", gradient.isnan().any(-1)),
        ("gradient still infinite", gradient.isinf().any(-1)),
        ("softmax finite but wrong", bad_output.any(-1)),
        ("gradient wrong", ~((gradient - pulled).abs() <= slack).all(-1)),
    ]
    return _verdict(faults, batch, None)


def _upstream(job: Job, question: Question) -> float:
    """What makes the mean over these rows hand each of them what the mean over the whole tensor does."""
    total = job.divisor
    if job.options.reduction == "sum" or not total or not math.isfinite(total) or math.isnan(question.share):
        return 1.0
    here = 1.0 / question.share if question.share else math.inf
    # Sound rows in the place of rows without a label make the mean's divisor larger, never the gradient.
    return min(1.0, here / total) if math.isfinite(here) and here else 1.0


# Which rows are run.


def _batch(job: Job, rule: Rule[Any, Any, Tried], numbers: tuple[int, ...], everywhere: bool) -> Batch | None:
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
