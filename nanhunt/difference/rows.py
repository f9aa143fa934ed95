"""Logits against logits, row by row: what their differences do to the softmax, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanhunt.difference.measure import to_doubles
from nanhunt.difference.measured import NOWHERE, Doubles, Places
from nanhunt.dtypes.convert import Array

TOP = 5


@dataclass(frozen=True)
class Peak:
    """A largest number over rows, and the first row that has it."""

    value: float = -1.0
    row: int = -1

    def __or__(self, other: Peak) -> Peak:
        """The larger; of equal ones the first."""
        return min(self, other, key=lambda one: (-one.value, one.row))


@dataclass(frozen=True)
class RowsMeasured:
    """What is known of some rows; parts add up in any order."""

    most: int
    """Row numbers kept."""
    rows: int = 0
    """Compared."""
    left_out: int = 0
    kl: float = 0.0
    """Sum of KL(softmax(a) || softmax(b)), in nats."""
    largest_kl: Peak = Peak()
    largest_kl_back: Peak = Peak()
    top1: Places = NOWHERE
    margin: Peak = Peak()
    top5: int = 0
    labelled: int = 0
    """Rows with a label that counts."""
    loss_a: float = 0.0
    """Sum over them."""
    loss_b: float = 0.0
    loss_change: Peak = Peak()

    def __add__(self, other: RowsMeasured) -> RowsMeasured:
        """Both parts together."""
        return RowsMeasured(
            most=self.most,
            rows=self.rows + other.rows,
            left_out=self.left_out + other.left_out,
            kl=self.kl + other.kl,
            largest_kl=self.largest_kl | other.largest_kl,
            largest_kl_back=self.largest_kl_back | other.largest_kl_back,
            top1=self.top1.plus(other.top1, self.most),
            margin=self.margin | other.margin,
            top5=self.top5 + other.top5,
            labelled=self.labelled + other.labelled,
            loss_a=self.loss_a + other.loss_a,
            loss_b=self.loss_b + other.loss_b,
            loss_change=self.loss_change | other.loss_change,
        )


def measure_rows(
    a: Array, b: Array, dtypes: tuple[str, str], labels: Array | None, first: int, most: int
) -> RowsMeasured:
    """Two blocks of logits of shape (rows, classes) as stored, labels of shape (rows,), the first row's number.

    Labels outside 0..classes-1 (an ignored index) do not count in the losses.
    """
    some, other = to_doubles(a, dtypes[0]), to_doubles(b, dtypes[1])
    sound = _is_sound(some) & _is_sound(other)
    rows = np.flatnonzero(sound)
    left_out = len(sound) - rows.size
    if rows.size == 0:
        return RowsMeasured(most, left_out=left_out)
    some, other, numbers = some[rows], other[rows], rows + first
    log_a, log_b = log_softmax(some), log_softmax(other)
    forth, back = kl_divergence(log_a, log_b), kl_divergence(log_b, log_a)
    best_a, best_b = some.argmax(-1), other.argmax(-1)
    changed = np.flatnonzero(best_a != best_b)
    margins = some[changed, best_a[changed]] - some[changed, best_b[changed]]
    found = RowsMeasured(
        most,
        rows=rows.size,
        left_out=left_out,
        kl=float(forth.sum()),
        largest_kl=_peak(forth, numbers),
        largest_kl_back=_peak(back, numbers),
        top1=Places(changed.size, tuple(int(each) for each in numbers[changed][:most])),
        margin=_peak(margins, numbers[changed]),
        top5=_other_sets(some, other),
    )
    return found if labels is None else found + _losses(log_a, log_b, labels[rows], numbers, most)


def log_softmax(logits: Doubles) -> Doubles:
    """Along the last axis; rows hold no NaN, no +inf and at least one finite logit."""
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def kl_divergence(log_p: Doubles, log_q: Doubles) -> Doubles:
    """KL(p || q) of every row, in nats: sum p (log p - log q), in which p = 0 adds nothing, whatever q is."""
    p = np.exp(log_p)
    with np.errstate(invalid="ignore"):
        terms = np.where(p > 0, p * (log_p - log_q), 0.0)
    return np.asarray(np.maximum(terms.sum(-1), 0.0))  # rounding makes -1e-17 of 0


def _is_sound(logits: Doubles) -> npt.NDArray[np.bool_]:
    largest = logits.max(-1)
    return np.asarray(np.isfinite(largest))  # max is NaN where there is one


def _peak(values: Doubles, rows: npt.NDArray[np.intp]) -> Peak:
    if values.size == 0:
        return Peak()
    at = int(np.argmax(values))
    return Peak(float(values[at]), int(rows[at]))


def _other_sets(a: Doubles, b: Doubles) -> int:
    """Rows whose ``TOP`` largest logits are of other classes, however ties for the last place are broken."""
    most = min(TOP, a.shape[-1])
    least_a, least_b = (np.partition(each, -most, -1)[:, -most, None] for each in (a, b))
    lost = ((a > least_a) & (b < least_b)) | ((b > least_b) & (a < least_a))
    in_both = ((a >= least_a) & (b >= least_b)).sum(-1)
    return int((lost.any(-1) | (in_both < most)).sum())


def _losses(
    log_a: Doubles, log_b: Doubles, labels: Array, numbers: npt.NDArray[np.intp], most: int
) -> RowsMeasured:
    counts = np.flatnonzero((labels >= 0) & (labels < log_a.shape[-1]))
    if counts.size == 0:
        return RowsMeasured(most)
    chosen = labels[counts].astype(np.intp)
    loss_a, loss_b = -log_a[counts, chosen], -log_b[counts, chosen]
    with np.errstate(invalid="ignore"):
        change = np.nan_to_num(np.abs(loss_a - loss_b), nan=0.0, posinf=np.inf)
    return RowsMeasured(
        most,
        labelled=counts.size,
        loss_a=float(loss_a.sum()),
        loss_b=float(loss_b.sum()),
        loss_change=_peak(change, numbers[counts]),
    )
