"""Row extremes of stored values, at memory speed, without torch.

A maximum and a minimum see every NaN and both infinities, since both propagate NaN. NumPy compares float16 one
by one, at a fiftieth of the speed of integers, so 16-bit formats are compared as integers: of two floats of
the same sign the one with the larger bits is the larger in magnitude.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.bits import layout
from nanhunt.dtypes.convert import Array, native, to_floats
from nanhunt.dtypes.errstate import ignoring
from nanhunt.dtypes.formats import FORMATS
from nanhunt.operations.cross_entropy.exps import ExpSums, parts

Floats = npt.NDArray[np.float64]

_SIGN = 0x8000


class Extremes(NamedTuple):
    """Per row, float64 (rows,)."""

    max: Floats
    """NaN if the row holds one."""
    min: Floats
    """Over the logits that are not -inf; +inf if all are; NaN if the row holds one."""
    masked: int
    """How many values of the block are -inf."""
    log_sum_exp: Floats
    """log(sum(exp(x))), good to 1e-4; NaN where it was not asked for."""


class Between(NamedTuple):
    """Rows whose maximum lies between these are summed, in parts of a block where most do."""

    low: float
    """At least -80 ..."""
    high: float
    """... and at most 80, where sums of exps neither vanish nor overflow in float32."""

    def holds(self, tops: Floats) -> npt.NDArray[np.bool_]:
        """Which of those maxima lie between."""
        between: npt.NDArray[np.bool_] = (tops > self.low) & (tops < self.high)
        return between


@ignoring("all")  # NaN is an answer here, and sums that nobody wants are dropped
def extremes(block: Array, dtype: str, summed: Between | None = None) -> Extremes:
    """Extremes of stored values (rows, classes), classes >= 1; read in parts that stay in cache."""
    carrier = np.dtype(np.uint16) if FORMATS[dtype].bits == 16 else to_floats(block[:0], dtype).dtype
    top, bottom = np.empty(len(block), carrier), np.empty(len(block), carrier)
    log_sums, exps, masked = np.full(len(block), np.nan), ExpSums(block.shape[-1], dtype), 0
    for rows in parts(block):
        masked += _reduce(block[rows], dtype, top[rows], bottom[rows])
        if summed is not None and _most(summed.holds(_floats(top[rows], dtype))):
            log_sums[rows] = np.log(exps.of(block[rows]))
    tops, bottoms = _floats(top, dtype), _floats(bottom, dtype)
    # Among bits, a negative NaN is the largest unsigned one, a positive one the largest signed: either is the row's.
    spoilt = np.isnan(tops) | np.isnan(bottoms)
    tops[spoilt] = bottoms[spoilt] = np.nan
    if summed is not None:
        log_sums[~summed.holds(tops)] = np.nan
    return Extremes(tops, bottoms, masked, log_sums)


def _most(rows: npt.NDArray[np.bool_]) -> bool:
    return 2 * int(np.count_nonzero(rows)) > len(rows)


def _reduce(part: Array, dtype: str, top: Array, bottom: Array) -> int:
    """Maxima and minima into (rows,), as floats or as bits; returns how many values are -inf."""
    if FORMATS[dtype].bits == 16:
        return _of_bits(native(part).view(np.uint16), dtype, top, bottom)
    values = to_floats(part, dtype)
    np.maximum.reduce(values, axis=-1, out=top)
    np.minimum.reduce(values, axis=-1, out=bottom)
    where = np.flatnonzero(bottom == -np.inf)
    if not len(where):
        return 0
    masked = _rows(values, where)
    hidden = masked == -np.inf
    lifted = masked.copy()
    np.putmask(lifted, hidden, np.inf)
    bottom[where] = lifted.min(axis=-1)
    return int(np.count_nonzero(hidden))


def _of_bits(bits: Array, dtype: str, top: Array, bottom: Array) -> int:
    """The same for bits, NaN aside.

    The largest signed integer is the largest positive float, the largest unsigned one the most negative.
    """
    signed = bits.view(np.int16)
    np.maximum.reduce(signed, axis=-1, out=top.view(np.int16))
    np.maximum.reduce(bits, axis=-1, out=bottom)
    negative = np.flatnonzero(top >= _SIGN)  # no positive value: the maximum has the smallest magnitude
    if len(negative):
        top[negative] = _rows(signed, negative).min(axis=-1).view(np.uint16)
    positive = np.flatnonzero(bottom < _SIGN)  # no negative value: the minimum has the smallest magnitude
    if len(positive):
        bottom[positive] = _rows(bits, positive).min(axis=-1)
    minus_inf = np.uint16(_SIGN | layout(dtype).infinity)
    where = np.flatnonzero(bottom == minus_inf)
    if not len(where):
        return 0
    part = _rows(bits, where)
    hidden = part == minus_inf
    bottom[where] = _lifted_min(part, hidden, dtype)
    return int(np.count_nonzero(hidden))


def _rows(values: Array, where: Array) -> Array:
    """Those rows; a copy only where they are not all."""
    return values if len(where) == len(values) else values[where]


def _lifted_min(bits: Array, hidden: npt.NDArray[np.bool_], dtype: str) -> Array:
    """The bits of the minimum over the values of each row that are not hidden; +inf where all are."""
    plus_inf = np.uint16(layout(dtype).infinity)
    lifted = bits.copy()
    np.putmask(lifted, hidden, np.uint16(0))  # 0 never wins among negative values
    bottom = lifted.max(axis=-1)
    positive = np.flatnonzero(bottom < _SIGN)
    if len(positive):
        some = bits[positive].copy()
        np.putmask(some, hidden[positive], plus_inf)
        bottom[positive] = some.min(axis=-1)
    smallest: Array = bottom
    return smallest


def _floats(found: Array, dtype: str) -> Floats:
    """float64 of floats, or of 16-bit formats as bits."""
    if found.dtype == np.uint16:
        found = to_floats(found.view(dtype) if FORMATS[dtype].in_numpy else found, dtype)
    values: Floats = found.astype(np.float64)
    return values


def runner_up(block: Array, dtype: str, labels: npt.NDArray[np.int64]) -> Floats:
    """The largest logit outside the label, float64 (rows,); -inf for a single class."""
    values = to_floats(block, dtype)
    values = values.copy() if np.shares_memory(values, block) else values
    values[np.arange(len(values)), labels] = -np.inf
    other: Floats = values.max(axis=-1).astype(np.float64)
    return other
