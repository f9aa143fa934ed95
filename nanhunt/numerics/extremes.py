"""Row extremes and sums of exps of stored values, at memory speed, without torch.

A maximum and a minimum see every NaN and both infinities, since both propagate NaN. NumPy compares float16 one
by one, at a fiftieth of the speed of integers, so 16-bit formats are compared as integers: of two floats of
the same sign the one with the larger bits is the larger in magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nanhunt.numerics.formats import Array, native, to_floats

Floats = npt.NDArray[np.float64]

_SIGN = 0x8000
CACHED_BYTES = 1 << 20
"""Read at once: a core keeps as much, and the exps of float16 beside it, for all the passes over it."""
_ADDED = 1 << 10
"""Terms that are added up in float32; what they come to is added up in float64."""
_LOG2_E = math.log2(math.e)


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

    def wants(self, tops: Floats) -> npt.NDArray[np.bool_]:
        """Which rows of those maxima."""
        between: npt.NDArray[np.bool_] = (tops > self.low) & (tops < self.high)
        return between


@np.errstate(invalid="ignore", over="ignore")  # NaN is an answer here, and sums are only used where asked for
def extremes(block: Array, dtype: str, summed: Between | None = None) -> Extremes:
    """Extremes of stored values (rows, classes), classes >= 1; read in parts that stay in cache."""
    block, of_bits = native(block), dtype in ("float16", "bfloat16")
    carrier = np.dtype(np.uint16) if of_bits else to_floats(block[:0], dtype).dtype
    top, bottom = np.empty(len(block), carrier), np.empty(len(block), carrier)
    sums = np.full(len(block), np.nan)
    adder, masked = _Adder(block, dtype), 0
    for rows in _parts(block):
        if of_bits:
            masked += _of_bits(block[rows].view(np.uint16), dtype, top[rows], bottom[rows])
        else:
            masked += _of_floats(to_floats(block[rows], dtype), top[rows], bottom[rows])
        if summed is not None and 2 * np.count_nonzero(summed.wants(_value(top[rows], dtype))) > len(
            top[rows]
        ):
            sums[rows] = adder.sums(block[rows])
    tops, bottoms = _value(top, dtype), _value(bottom, dtype)
    if summed is not None:
        sums[~summed.wants(tops)] = np.nan
    # Among bits, a negative NaN is the largest unsigned one, a positive one the largest signed: either is the row's.
    spoilt = np.isnan(tops) | np.isnan(bottoms)
    tops[spoilt] = bottoms[spoilt] = np.nan
    return Extremes(tops, bottoms, masked, np.log(sums))


def _parts(block: Array) -> Iterator[slice]:
    step = max(1, CACHED_BYTES // max(1, block[:1].nbytes))
    for first in range(0, len(block), step):
        yield slice(first, first + step)


def _of_floats(values: Array, top: Array, bottom: Array) -> int:
    """Maxima and minima of ``values`` into (rows,); returns how many are -inf."""
    np.maximum.reduce(values, axis=-1, out=top)
    np.minimum.reduce(values, axis=-1, out=bottom)
    where = np.flatnonzero(bottom == -np.inf)
    if not len(where):
        return 0
    part = _rows(values, where)
    hidden = part == -np.inf
    lifted = part.copy()
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
    minus_inf = np.uint16(0xFC00 if dtype == "float16" else 0xFF80)
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
    plus_inf = np.uint16(0x7C00 if dtype == "float16" else 0x7F80)
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


def _value(found: Array, dtype: str) -> Floats:
    """float64 of floats, or of 16-bit formats as bits."""
    if found.dtype == np.uint16:
        found = to_floats(found.view(np.float16) if dtype == "float16" else found, dtype)
    values: Floats = found.astype(np.float64)
    return values


def runner_up(block: Array, dtype: str, labels: npt.NDArray[np.int64]) -> Floats:
    """The largest logit outside the label, float64 (rows,); -inf for a single class."""
    values = to_floats(block, dtype)
    values = values.copy() if np.shares_memory(values, block) else values
    values[np.arange(len(values)), labels] = -np.inf
    other: Floats = values.max(axis=-1).astype(np.float64)
    return other


def log_sum_exp(block: Array, dtype: str) -> Floats:
    """log(sum(exp(x))) of the stored values, float64 (rows,); good to 1e-4 for maxima between -80 and 80."""
    adder = _Adder(block, dtype)
    total: Floats = np.log(np.concatenate([adder.sums(block[rows]) for rows in _parts(block)]))
    return total


class _Adder:
    """Adds up the exps of a few rows at a time, in place in memory that stays in cache.

    No maximum is subtracted. exp(x) is taken as exp2(x log2(e)), which costs half as much: rounding x log2(e) costs
    |x| 2**-23 at most, exp2 some units in the last place, and adding up ``_ADDED`` terms in any order as many units
    of roundoff, 6.1e-5.
    """

    def __init__(self, block: Array, dtype: str) -> None:
        self._dtype = dtype
        self._classes = block.shape[-1]
        self._added = min(self._classes, _ADDED)
        self._room = np.empty((0, 0), np.float32)

    def sums(self, part: Array) -> Floats:
        """Sums of the exps of stored values (rows, classes), float64 (rows,)."""
        if len(self._room) < len(part):
            # The columns after the classes stay 0.
            self._room = np.zeros((len(part), -(-self._classes // self._added) * self._added), np.float32)
        terms = self._room[: len(part)]
        exps = terms[:, : self._classes]
        np.exp2(_in_base_2(part, self._dtype, exps), out=exps)
        # einsum adds three times as fast as sum, but one after the other.
        sums: Floats = np.einsum("rpc->rp", terms.reshape(len(part), -1, self._added)).sum(-1, np.float64)
        return sums


def _in_base_2(part: Array, dtype: str, out: Array) -> Array:
    """x log2(e) into ``out``, float32.

    NumPy converts float16 one by one, so its bits are moved to where float32 has them. The exponent's bias is then
    too small by 112, which the factor makes good, for subnormal numbers too. Infinities become 65,536, whose
    negative still has exp 0.
    """
    if dtype != "float16":
        return np.multiply(to_floats(part, dtype), np.float32(_LOG2_E), out=out, casting="same_kind")
    bits = out.view(np.int32)
    np.left_shift(native(part).view(np.int16), 13, out=bits, dtype=np.int32)
    np.bitwise_and(bits, -0x70002000, out=bits)  # 0x8FFFE000: the sign filled the bits between
    return np.multiply(out, np.float32(_LOG2_E * 2.0**112), out=out)
