"""Runs the fixes of a rule, as they are printed, on rows that the rule holds for.

The mean of the rows that are tried (``batch``) divides by fewer rows than the user's, so the loss is handed the
quotient of both divisors as its upstream gradient: every row's gradient is then what it is in the whole tensor. A
reduction that overflows only over all rows is known from the pass over them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.operations.caller import one_torch_thread
from nanhunt.operations.cross_entropy.batch import Batch, chosen, labelled_as_rows
from nanhunt.operations.cross_entropy.confirm import rounding_bound
from nanhunt.operations.cross_entropy.fixes import Spelling, slots
from nanhunt.operations.cross_entropy.job import Job
from nanhunt.operations.cross_entropy.options import terms_of
from nanhunt.operations.cross_entropy.truth import Question
from nanhunt.operations.fix import Fix, Ran, run
from nanhunt.operations.rule import Rule
from nanhunt.results.finding import RemedyResult

ALONE = 4
"""So many failing rows are run alone, too: errors of opposite sign cannot hide in a sum of one row."""


WRONG_LOSS = 0.01
"""A loss further than this from the truth (relative; absolute below 1) is a wrong loss, beyond any rounding."""


WRONG_ROUNDINGS = 8.0
"""Nor is one wrong within so many roundings, which in bfloat16 are 3 %: the division by the temperature, log_softmax,
the product with the weight, two sums and the quotient have one each."""


WRONG_GRADIENT = 0.02
"""Likewise the largest error of a row's gradient, against that of a label with probability 0."""


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
    batch = chosen(job, rule, numbers, everywhere) if fixes else None
    if batch is None:
        return ()
    texts = slots(problem)
    align = job.targets.code + "\n" if job.targets and job.targets.code else ""
    results = [(fix, _tried(fix, rule, batch, align + fix.render(texts))) for fix in fixes]
    told = [result for fix, result in results if not (fix.tempting and result.works)]
    return tuple(sorted(told, key=lambda result: not result.works))


def problem_of(job: Job) -> Spelling:
    """What code must know of the tensors and the loss of ``job``."""
    options, targets, dimensions = job.options, job.targets, len(job.tensor.shape)
    kind = "" if targets is None else "labels" if targets.labels is not None else "probabilities"
    return Spelling(
        dimensions, options.class_axis % dimensions, job.rows.classes, job.tensor.dtype, job.dtype, kind,
        job.weights is not None and kind != "", labelled_as_rows(job) or bool(targets and targets.code),
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
        *_loss_faults(ran, wanted, fix.scale, batch),
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


def _loss_faults(ran: Ran, wanted: float, scale: float, batch: Batch) -> list[Fault]:
    """What is wrong with the loss; ``wanted`` is ``scale`` times the true one, so ``scale`` stands for a loss of 1."""
    assert ran.result is not None
    loss = ran.result.double()
    slack = max(WRONG_LOSS, WRONG_ROUNDINGS * torch.finfo(ran.result.dtype).eps / 2)
    wrong = not math.isfinite(wanted) or abs(float(loss) - wanted) > slack * max(scale, abs(wanted))
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
