"""Proves what PyTorch does with most rows from a few numbers of each, at memory speed, without importing torch.

Write M for the row's maximum, t for the label's logit, R for the largest logit outside the label, C for the
number of classes, g for what the reduction hands back to each row loss, and S for log(sum exp x). All that the
implementations do to a row hangs on these:

- M <= S <= M + log C, and the rounded sum of C exps differs from exp(S) by a factor of at most 1 + C u32 + u:
  torch adds float16 and bfloat16 in float32 and rounds once. MARGIN (10 %) covers that up to a million
  classes, together with the few units in the last place of exp itself.
- The naive sum is finite while S < log(max), and normal while M > log(smallest normal).
- The label's probability is exp(t - S). It is normal, with its reciprocal finite, while S - t is below
  -log(smallest normal), and then -g/p and its product with p/s stay finite too: in the quotient's backward
  pass 1/p meets 1/s, and (g/p)/s = g exp(-t).
- The stable forms subtract M first: their sum lies in [1, C], and only p, 1/p and the loss S - t remain.
- The loss of ``fused`` is not 0 when t < M, since then it is at least M - t; for t = M it is log(1 + r) with
  r >= exp(R - M), which is above 0 when r is some units of roundoff.
- Outside the label the gradient's largest entry is g exp(R - S).
- m + log(s) - x_t rounds once at |m| + log C and once at the loss: within the loss's bound while |M| is moderate.

Rows near any of these limits are not proven, and are run. Masked logits (-inf) contribute exp = 0 to every sum
and keep every bound above: C counts them too, which only widens it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.convert import Array, rounded, to_floats
from nanhunt.dtypes.errstate import ignoring
from nanhunt.dtypes.formats import FORMATS, FloatFormat, compute_format
from nanhunt.operations.cross_entropy.exps import log_sum_exp
from nanhunt.operations.cross_entropy.extremes import Between, Extremes, extremes, runner_up
from nanhunt.operations.cross_entropy.facts import BLANK_FROM, Bools, RowBehaviour, RowFacts, nothing_wrong

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

MARGIN = 0.1
"""Distance, in logits, that every bound keeps from the limit it must not cross: a factor of 1.1."""
MODERATE = 32.0
"""|M| up to this many max(1, log C) keeps logsumexp's rounding (32 + 3 such terms, and 20 units of roundoff for
the order of summation) inside the bound of 64 that ``confirm`` judges it by."""


@dataclass(frozen=True)
class Screen:
    """One dtype and one loss without options that change its terms."""

    stored: str
    dtype: str
    classes: int
    log_gradient: float
    """log g: 0 for a sum, -log N for a mean."""
    has_targets: bool

    @property
    def format(self) -> FloatFormat:
        """The format that the losses are computed in."""
        return compute_format(self.dtype)

    @property
    def summed(self) -> Between | None:
        """Rows that no bound proves without their sum, in half precision: it is taken while they are in cache."""
        if not self.format.is_narrow:
            return None
        open_from = math.log(self.format.max) - MARGIN - math.log(self.classes)
        return Between(max(open_from, math.log(self.format.smallest_normal)), self.format.exp_limit)


@dataclass(frozen=True)
class Screened:
    """What the screen knows of one block."""

    proven: Bools
    facts: RowFacts
    """Valid where ``proven``."""
    extremes: Extremes
    loss_low: Floats
    loss_high: Floats
    """Bounds on the row loss of ``fused``; valid where ``proven``."""


@dataclass(frozen=True)
class _Numbers:
    """The numbers of each row, as cast to the dtype; float64 (rows,)."""

    top: Floats
    bottom: Floats
    label: Floats
    other: Floats
    """R; a lower bound of it where the label is not the maximum: then M itself."""
    low: Floats
    """S is at least this ..."""
    high: Floats
    """... and at most this."""


@ignoring("invalid", "over")  # inf - inf and 0 * inf are bounds of rows that are not proven
def screen(
    block: Array, labels: Labels | None, ignored: Bools | None, bad: Bools | None, how: Screen
) -> Screened:
    """Screens stored values ``block`` (rows, classes); ``labels`` are None where there are no targets."""
    found = extremes(block, how.stored, how.summed)
    sound = np.isfinite(found.max) & np.isfinite(found.min) & _survives_cast(found, how)
    if bad is not None:
        sound &= ~bad
    # A row whose label is ignored is judged with class 0, which the handwritten forms gather for it.
    chosen = (
        None
        if labels is None
        else np.where(sound, labels if ignored is None else np.where(ignored, 0, labels), 0)
    )
    numbers = _numbers(block, found, chosen, sound, how)
    verdict = _decide(numbers, sound, how)
    unsure = np.flatnonzero(sound & ~verdict.proven & _worth_summing(numbers, how))
    if len(unsure):
        numbers = _with_sums(block, numbers, found, unsure, how)
        verdict = _decide(numbers, sound, how)
    # The least logit is that of classes that are not masked: such rows are looked at where some are.
    even = sound & (found.max == found.min) & (how.classes > 1)
    verdict.facts.constant, verdict.facts.blank = even, even & (np.abs(found.max) >= BLANK_FROM)
    proven = verdict.proven & ~even if found.masked else verdict.proven
    _mark_ignored(verdict.facts, ignored)
    counted = 1.0 if ignored is None else ~ignored
    low, high = (numbers.low - numbers.label) * counted, (numbers.high - numbers.label) * counted
    return Screened(proven, verdict.facts, found, low, high)


@dataclass(frozen=True)
class _Verdict:
    proven: Bools
    facts: RowFacts


def _survives_cast(found: Extremes, how: Screen) -> Bools:
    """No logit overflows in the dtype, nor is within 10 % of its largest number."""
    largest = 0.9 * FORMATS[how.dtype].max
    return (np.abs(found.max) < largest) & (np.abs(found.min) < largest)


def _numbers(block: Array, found: Extremes, labels: Labels | None, sound: Bools, how: Screen) -> _Numbers:
    top, bottom = (_cast(np.where(sound, each, 0.0), how) for each in (found.max, found.min))
    high = top + math.log(how.classes)
    if labels is None:
        return _Numbers(top, bottom, bottom, top, top, high)
    picked = to_floats(block[np.arange(len(block)), labels], how.stored).astype(np.float64)
    label = _cast(np.where(sound, picked, 0.0), how)
    other = top.copy()
    leading = np.flatnonzero(sound & (label == top))
    if len(leading):
        other[leading] = _cast(runner_up(block[leading], how.stored, labels[leading]), how)
    return _Numbers(top, bottom, label, other, np.maximum(top, label), high)


def _cast(values: Floats, how: Screen) -> Floats:
    """Values as rounded to the format of the losses, back in float64; rounding keeps order."""
    return values if how.dtype == how.stored else rounded(values, how.format.name)


def _worth_summing(n: _Numbers, how: Screen) -> Bools:
    """Rows that the bounds M <= S <= M + log C leave open and the sum itself may settle: half precision only.

    A maximum below the smallest normal number's logarithm would not be proven by any sum.
    """
    if not how.format.is_narrow:
        return np.zeros(len(n.top), bool)
    moderate = (n.top < how.format.exp_limit) & (n.top > math.log(how.format.smallest_normal))
    return moderate & (n.label > -np.inf)


def _with_sums(
    block: Array, n: _Numbers, found: Extremes, rows: npt.NDArray[np.intp], how: Screen
) -> _Numbers:
    """S of those rows, up to its rounding and that of the cast."""
    total = found.log_sum_exp[rows]
    missing = np.flatnonzero(np.isnan(total))
    if len(missing):
        total[missing] = log_sum_exp(block[rows[missing]], how.stored)
    doubt = 1e-3 + (
        0.0 if how.dtype == how.stored else how.format.unit_roundoff * np.abs(found.max[rows]).clip(1.0)
    )
    if how.dtype != how.stored:
        doubt = doubt + how.format.unit_roundoff * np.abs(found.min[rows])
    low, high = n.low.copy(), n.high.copy()
    low[rows], high[rows] = total - doubt, total + doubt
    return _Numbers(n.top, n.bottom, n.label, n.other, low, high)


def _decide(n: _Numbers, sound: Bools, how: Screen) -> _Verdict:
    form = how.format
    log_max, log_normal = math.log(form.max), math.log(form.smallest_normal)
    # Half precision is computed in float32 and rounded once, so its subnormal numbers are right to half a unit.
    # The wider formats may flush theirs to 0: there only normal numbers count.
    floor = math.log(4 * form.smallest_subnormal) if form.is_narrow else log_normal
    depth = n.high - n.label
    stable = sound & (n.label > -np.inf) & (depth < -floor - MARGIN)
    stable &= depth + how.log_gradient < log_max - 3 * MARGIN
    stable &= (n.high - n.top < math.log(6e4)) | (not form.is_narrow)
    # Where p is formed as exp(x - lse), lse was rounded at its own magnitude.
    stable &= (
        depth + 2 * form.unit_roundoff * np.abs(n.high) < -math.log(2 * form.smallest_subnormal) - MARGIN
    )
    facts = nothing_wrong(len(n.top))
    if how.has_targets:
        stable &= np.abs(n.top) <= MODERATE * max(1.0, math.log(how.classes))
        stable &= (n.label < n.top) | (n.other - n.top > math.log(16 * form.unit_roundoff))
        facts.vanished, certain = _vanishing(n, how)
        stable &= certain
    fine = (n.top < 0.9 * form.exp_limit) & (n.high < log_max - MARGIN) & (n.top > log_normal + MARGIN)
    fine &= (n.label > floor + MARGIN) & (how.log_gradient - n.label < log_max - 3 * MARGIN)
    overflows = _overflow(n, facts, how)
    return _Verdict(stable & (fine | overflows), facts)


def _vanishing(n: _Numbers, how: Screen) -> tuple[Bools, Bools]:
    """(every entry outside the label is 0, whether that or its opposite is certain)."""
    smallest = math.log(how.format.smallest_subnormal)
    least = n.other - n.high + how.log_gradient
    most = n.other - n.low + how.log_gradient
    # An entry rounds to 0 up to half the smallest number; log p itself was rounded at its own magnitude before.
    blur = MARGIN + 4 * how.format.unit_roundoff * np.abs(n.high - n.other)
    vanishes = most + blur < smallest - math.log(2)
    if not how.format.is_narrow:
        vanishes &= (
            False  # what is far below float32's subnormals is not sure to be above 0 in float64 either
        )
    return vanishes, vanishes | (least - blur > smallest + math.log(2))


def _overflow(n: _Numbers, facts: RowFacts, how: Screen) -> Bools:
    """Rows whose naive exp is inf for sure, and finite or inf for sure at the label; their facts are filled in."""
    limit = how.format.exp_limit
    over = n.top > limit + MARGIN
    at_label = n.label > limit + MARGIN
    sure = over & (at_label | (n.label < limit - MARGIN))
    facts.exp_inf = sure
    facts.zero_classes = sure & ~at_label & (not how.has_targets)
    facts.by["naive"] = RowBehaviour(
        nan_probability=sure,  # inf / inf
        zero_target_probability=sure & ~at_label,  # finite / inf
        inf_loss=sure & ~at_label,
        nan_loss=sure & at_label,
        bad_gradient=sure.copy(),
    )
    return sure


def _mark_ignored(facts: RowFacts, ignored: Bools | None) -> None:
    """An ignored row has loss 0 and no label to judge; where p is 0 or NaN its gradient is NaN all the same."""
    if ignored is None:
        return
    facts.ignored = ignored.copy()
    facts.vanished &= ~ignored
    naive = facts.by["naive"]
    naive.zero_target_probability &= ~ignored
    naive.inf_loss &= ~ignored
    naive.nan_loss &= ~ignored
