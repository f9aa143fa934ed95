"""Bits to numbers: blocks of stored values as NumPy floats or as torch tensors, in the dtype asked for."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.formats import FORMATS, FloatFormat

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


def native(block: Array) -> Array:
    """The block in this machine's byte order (torch and the bit tricks know no other)."""
    return block if block.dtype.isnative else block.astype(block.dtype.newbyteorder("="))


def to_floats(block: Array, dtype: str) -> Array:
    """Stored values as NumPy floats that hold each exactly: float64 for float64, float32 for the rest."""
    block, form = native(block), FORMATS[dtype]
    if form.in_numpy:
        return block if form.bits >= 32 else block.astype(np.float32)
    if form.bits == 8:
        return _table(form)[block]
    # bfloat16 is the upper half of a float32.
    return (block.astype(np.uint32) << np.uint32(16)).view(np.float32)


@cache
def _table(form: FloatFormat) -> Array:
    """The 256 values of a format of 8 bits as float32, indexed by their bits."""
    bits = np.arange(256)
    last = (1 << form.exponent_bits) - 1
    exponent = bits >> form.mantissa_bits & last
    fraction = (bits & (1 << form.mantissa_bits) - 1) / (1 << form.mantissa_bits)
    magnitude = np.where(
        exponent == 0, fraction * form.smallest_normal, (1 + fraction) * 2.0 ** (exponent - form.bias)
    )
    if form.has_infinity:
        magnitude[exponent == last] = np.where(fraction[exponent == last] == 0, np.inf, np.nan)
    else:  # one NaN per sign
        magnitude[bits & 0x7F == 0x7F] = np.nan
    return np.where(bits & 0x80, -magnitude, magnitude).astype(np.float32)


def rounded(values: npt.NDArray[np.float64], dtype: str) -> npt.NDArray[np.float64]:
    """Numbers as a cast to a format of at least 16 bits leaves them: by float32 to the narrower ones, as PyTorch."""
    form = FORMATS[dtype]
    if form.bits == 64:
        return values
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
        if form.in_numpy:
            return single.astype(dtype).astype(np.float64)
    bits = single.view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))  # ties to even
    return ((bits + half) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


def to_torch(block: Array, dtype: str) -> torch.Tensor:
    """Stored values as a torch tensor of exactly that dtype; shares memory with ``block`` where it can."""
    import torch

    block = native(block)
    turned = min(block.strides, default=0) < 0  # also of an axis of one row, which NumPy calls contiguous
    if not block.flags.writeable or not block.flags.c_contiguous or turned:
        block = block.copy()  # from_numpy warns about read-only memory, and refuses negative strides
    tensor = torch.from_numpy(block)
    wanted = torch_dtype(dtype)
    return tensor if tensor.dtype == wanted else tensor.view(wanted)


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch dtype of that name."""
    import torch

    found = getattr(torch, dtype)
    assert isinstance(found, torch.dtype)
    return found
