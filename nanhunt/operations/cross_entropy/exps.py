"""Sums of exps of stored values, float64 by row, at the speed of a few passes in cache, without torch.

No maximum is subtracted, so they are for rows whose maximum lies between -80 and 80, where sums of exps neither
vanish nor overflow in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.convert import Array, native, to_floats
from nanhunt.dtypes.formats import FORMATS

Floats = npt.NDArray[np.float64]

CACHED_BYTES = 1 << 20
"""Read at once: a core keeps as much, and the exps of float16 beside it, for all the passes over it."""
_ADDED = 1 << 10
"""Terms that are added up in float32; what they come to is added up in float64."""
_LOG2_E = math.log2(math.e)


def parts(block: Array) -> Iterator[slice]:
    """Rows of a block (rows, classes) that are read together."""
    step = max(1, CACHED_BYTES // max(1, block[:1].nbytes))
    for first in range(0, len(block), step):
        yield slice(first, first + step)


def log_sum_exp(block: Array, dtype: str) -> Floats:
    """log(sum(exp(x))) of the stored values, float64 (rows,); good to 1e-4 for maxima between -80 and 80."""
    exps = ExpSums(block.shape[-1], dtype)
    total: Floats = np.log(np.concatenate([exps.of(block[rows]) for rows in parts(block)]))
    return total


class ExpSums:
    """Adds up the exps of a few rows at a time, in place in memory that stays in cache.

    exp(x) is taken as exp2(x log2(e)), which costs half as much: rounding x log2(e) costs
    |x| 2**-23 at most, exp2 some units in the last place, and adding up ``_ADDED`` terms in any order as many units
    of roundoff, 6.1e-5.
    """

    def __init__(self, classes: int, dtype: str) -> None:
        self._dtype = dtype
        self._classes = classes
        self._added = min(self._classes, _ADDED)
        self._room = np.empty((0, 0), np.float32)

    def of(self, part: Array) -> Floats:
        """The sums of stored values (rows, classes), float64 (rows,)."""
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
    if FORMATS[dtype].bits != 16 or not FORMATS[dtype].in_numpy:
        return np.multiply(to_floats(part, dtype), np.float32(_LOG2_E), out=out, casting="same_kind")
    bits = out.view(np.int32)
    np.left_shift(native(part).view(np.int16), 13, out=bits, dtype=np.int32)
    np.bitwise_and(bits, -0x70002000, out=bits)  # 0x8FFFE000: the sign filled the bits between
    return np.multiply(out, np.float32(_LOG2_E * 2.0**112), out=out)
