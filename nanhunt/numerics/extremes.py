"""Row extremes of stored values, at memory speed, without torch.

A maximum and a minimum see every NaN and both infinities, since both propagate NaN. NumPy compares float16 one
by one, at a fiftieth of the speed of integers, so 16-bit formats are compared as integers: of two floats of
the same sign the one with the larger bits is the larger in magnitude.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nanhunt.numerics.formats import Array, native, to_floats

Floats = npt.NDArray[np.float64]

_SIGN = 0x8000
CACHED_VALUES = 1 << 17
"""Values per part: half a megabyte of float32, which a core keeps for the second reduction."""


class Extremes(NamedTuple):
    """Per row, float64 (rows,)."""

    max: Floats
    """NaN if the row holds one."""
    min: Floats
    """Over the logits that are not -inf; +inf if all are; NaN if the row holds one."""
    masked: int
    """How many values of the block are -inf."""


def extremes(block: Array, dtype: str) -> Extremes:
    """Extremes of stored values (rows, classes), classes >= 1; read in parts that stay in cache."""
    parts = [_extremes(part, dtype) for part in _parts(block)]
    return Extremes(
        np.concatenate([part.max for part in parts]),
        np.concatenate([part.min for part in parts]),
        sum(part.masked for part in parts),
    )


def _parts(block: Array) -> Iterator[Array]:
    step = max(1, CACHED_VALUES // block.shape[-1])
    for first in range(0, len(block), step):
        yield block[first : first + step]


def _extremes(block: Array, dtype: str) -> Extremes:
    block = native(block)
    if dtype in ("float16", "bfloat16"):
        return _of_bits(block.view(np.uint16), dtype)
    values = to_floats(block, dtype)
    with np.errstate(invalid="ignore"):  # NaN is an answer here
        top, bottom = values.max(axis=-1), values.min(axis=-1)
    top, bottom = top.astype(np.float64), bottom.astype(np.float64)
    masked = 0
    where = np.flatnonzero(bottom == -np.inf)
    if len(where):
        part = values if len(where) == len(values) else values[where]
        hidden = part == -np.inf
        masked = int(np.count_nonzero(hidden))
        lifted = part.copy()
        np.putmask(lifted, hidden, np.inf)
        bottom[where] = lifted.min(axis=-1)
    return Extremes(top, bottom, masked)


def _of_bits(bits: npt.NDArray[np.uint16], dtype: str) -> Extremes:
    """The largest signed integer is the largest positive float, the largest unsigned the most negative one."""
    signed = bits.view(np.int16)
    top = signed.max(axis=-1).view(np.uint16)
    bottom = bits.max(axis=-1)
    negative = np.flatnonzero(top >= _SIGN)  # no positive value: the maximum has the smallest magnitude
    if len(negative):
        top[negative] = signed[negative].min(axis=-1).view(np.uint16)
    positive = np.flatnonzero(bottom < _SIGN)  # no negative value: the minimum has the smallest magnitude
    if len(positive):
        bottom[positive] = bits[positive].min(axis=-1)
    tops, bottoms = _value(top, dtype), _value(bottom, dtype)
    # A negative NaN has the largest unsigned bits, a positive one the largest signed: either makes the row NaN.
    spoilt = np.isnan(tops) | np.isnan(bottoms)
    masked, where = 0, np.flatnonzero(bottoms == -np.inf)
    if len(where):
        minus_inf = np.uint16(0xFC00 if dtype == "float16" else 0xFF80)
        part = bits if len(where) == len(bits) else bits[where]
        hidden = part == minus_inf
        masked = int(np.count_nonzero(hidden))
        bottoms[where] = _lifted_min(part, hidden, dtype)
    tops[spoilt] = bottoms[spoilt] = np.nan
    return Extremes(tops, bottoms, masked)


def _lifted_min(bits: npt.NDArray[np.uint16], hidden: npt.NDArray[np.bool_], dtype: str) -> Floats:
    """The minimum of rows over the values that are not hidden; +inf where all are."""
    plus_inf = np.uint16(0x7C00 if dtype == "float16" else 0x7F80)
    lifted = bits.copy()
    np.putmask(lifted, hidden, np.uint16(0))  # 0 never wins among negative values
    bottom = lifted.max(axis=-1)
    positive = np.flatnonzero(bottom < _SIGN)
    if len(positive):
        some = bits[positive].copy()
        np.putmask(some, hidden[positive], plus_inf)
        bottom[positive] = some.min(axis=-1)
    return _value(bottom, dtype)


def _value(bits: npt.NDArray[np.uint16], dtype: str) -> Floats:
    stored = bits.view(np.float16) if dtype == "float16" else bits
    values: Floats = to_floats(stored, dtype).astype(np.float64)
    return values


def runner_up(block: Array, dtype: str, labels: npt.NDArray[np.int64]) -> Floats:
    """The largest logit outside the label, float64 (rows,); -inf for a single class."""
    values = to_floats(block, dtype)
    values = values.copy() if np.shares_memory(values, block) else values
    values[np.arange(len(values)), labels] = -np.inf
    other: Floats = values.max(axis=-1).astype(np.float64)
    return other


def log_sum_exp(block: Array, dtype: str, top: Floats) -> Floats:
    """log(sum(exp(x))) of the stored values, float64 (rows,); good to 1e-4 where ``top`` is the finite maximum.

    float32 arithmetic: each exp is good to a few units in the last place, and NumPy adds pairwise.
    """
    step = max(1, CACHED_VALUES // block.shape[-1])
    sums = [_shifted_sum(part, dtype, top[index * step :]) for index, part in enumerate(_parts(block))]
    total: Floats = np.log(np.concatenate(sums)) + top
    return total


def _shifted_sum(part: Array, dtype: str, top: Floats) -> Floats:
    values = _nearly(part) if dtype == "float16" else to_floats(part, dtype)
    # In place where the values are a copy already: fresh pages cost more than all the arithmetic.
    out = None if np.may_share_memory(values, part) else values
    shifted = np.subtract(values, top[: len(part), None].astype(values.dtype), out=out)
    np.exp(shifted, out=shifted)
    total: Floats = shifted.sum(axis=-1).astype(np.float64)
    return total


def _nearly(part: Array) -> Array:
    """float16 as float32, good to 2**-15, at five times the speed at which NumPy converts one by one.

    The bits move to where float32 has them and the exponent is biased anew: right for normal numbers, while
    zeros and subnormal ones gain 2**-15 at most. Infinities become 65,536, whose negative still has exp 0.
    """
    bits = native(part).view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(-0x70002000)  # 0x8FFFE000: the sign filled the bits between
    bits += np.int32((127 - 15) << 23)
    return bits.view(np.float32)
