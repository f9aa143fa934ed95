"""Logits against logits, row by row: what their differences do to the softmax, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanhunt.difference.measure import CHUNK, to_doubles
from nanhunt.difference.measured import NOWHERE, Doubles, Floats, Places
from nanhunt.dtypes.convert import Array, to_floats
from nanhunt.dtypes.formats import FORMATS

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
    found, step = RowsMeasured(most), max(1, CHUNK // a.shape[-1])
    scratch = np.empty(
        (5, min(step, len(a)), a.shape[-1])
    )  # once: fresh memory costs more than the arithmetic
    for start in range(0, len(a), step):
        part = slice(start, start + step)
        logits = _floats(a[part], dtypes[0]), _floats(b[part], dtypes[1])
        found += _measured(*logits, None if labels is None else labels[part], first + start, most, scratch)
    return found


def _floats(logits: Array, dtype: str) -> Floats:
    return to_floats(logits, dtype) if dtype in FORMATS else to_doubles(logits, dtype)


def _measured(
    a: Floats, b: Floats, labels: Array | None, first: int, most: int, scratch: Doubles
) -> RowsMeasured:
    sound = _is_sound(a) & _is_sound(b)
    rows = np.flatnonzero(sound)
    left_out = len(sound) - rows.size
    if rows.size == 0:
        return RowsMeasured(most, left_out=left_out)
    if left_out:
        a, b = a[rows], b[rows]
    numbers = rows + first
    log_a, p, log_b, q, work = scratch[:, : rows.size]
    softmax(a, log_a, p)
    softmax(b, log_b, q)
    forth, back = kl_divergences(log_a, p, log_b, q, work)
    best_a, best_b = a.argmax(-1), b.argmax(-1)
    changed = np.flatnonzero(best_a != best_b)
    margins = a[changed, best_a[changed]].astype(np.float64) - a[changed, best_b[changed]]
    found = RowsMeasured(
        most,
        rows=rows.size,
        left_out=left_out,
        kl=float(forth.sum()),
        largest_kl=_peak(forth, numbers),
        largest_kl_back=_peak(back, numbers),
        top1=Places(changed.size, tuple(int(each) for each in numbers[changed][:most])),
        margin=_peak(margins, numbers[changed]),
        top5=_other_sets(a, b),
    )
    return found if labels is None else found + _losses(log_a, log_b, labels[rows], numbers, most)


def softmax(logits: Floats, logarithms: Doubles, probabilities: Doubles) -> None:
    """Writes both, along the last axis; rows hold no NaN, no +inf and at least one finite logit."""
    np.subtract(logits, logits.max(-1, keepdims=True), out=logarithms, dtype=np.float64)
    np.exp(logarithms, out=probabilities)
    total = probabilities.sum(-1, keepdims=True)
    logarithms -= np.log(total)
    probabilities /= total


def kl_divergences(
    log_p: Doubles, p: Doubles, log_q: Doubles, q: Doubles, work: Doubles
) -> tuple[Doubles, Doubles]:
    """KL(p || q) and KL(q || p) of every row, in nats; all of shape (rows, classes), ``work`` is written over."""
    with np.errstate(invalid="ignore"):
        difference = np.subtract(log_p, log_q, out=work)
        forth, back = np.einsum("ij,ij->i", p, difference), -np.einsum("ij,ij->i", q, difference)
    masked = np.flatnonzero(~(np.isfinite(forth) & np.isfinite(back)))
    if masked.size:
        forth[masked] = _masked_kl(log_p[masked], p[masked], log_q[masked])
        back[masked] = _masked_kl(log_q[masked], q[masked], log_p[masked])
    return np.maximum(forth, 0.0), np.maximum(back, 0.0)  # rounding makes -1e-17 of 0


def _masked_kl(log_p: Doubles, p: Doubles, log_q: Doubles) -> Doubles:
    """The sum of p (log p - log q), in which p = 0 adds nothing, whatever q is."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(p > 0, p * (log_p - log_q), 0.0).sum(-1))


def _is_sound(logits: Floats) -> npt.NDArray[np.bool_]:
    largest = logits.max(-1)
    return np.asarray(np.isfinite(largest))  # max is NaN where there is one


def _peak(values: Doubles, rows: npt.NDArray[np.intp]) -> Peak:
    if values.size == 0:
        return Peak()
    at = int(np.argmax(values))
    return Peak(float(values[at]), int(rows[at]))


def _other_sets(a: Floats, b: Floats) -> int:
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
