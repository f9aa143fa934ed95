"""Bits to numbers: blocks of stored values as NumPy floats or as torch tensors, in the dtype asked for."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


def native(block: Array) -> Array:
    """The block in this machine's byte order (torch and the bit tricks know no other)."""
    return block if block.dtype.isnative else block.astype(block.dtype.newbyteorder("="))


def to_floats(block: Array, dtype: str) -> Array:
    """Stored values as NumPy floats that hold each exactly: float64 for float64, float32 for the rest."""
    block = native(block)
    if dtype == "bfloat16":
        # bfloat16 is the upper half of a float32.
        return (block.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype in ("float8_e4m3fn", "float8_e5m2"):
        return _float8_table(dtype)[block]
    return block if dtype in ("float64", "float32") else block.astype(np.float32)


@cache
def _float8_table(dtype: str) -> Array:
    """The 256 values of a float8 format as float32, indexed by their bits (OCP 8-bit floating point, 2023)."""
    exponent_bits, bias = (4, 7) if dtype == "float8_e4m3fn" else (5, 15)
    mantissa_bits = 7 - exponent_bits
    bits = np.arange(256)
    exponent = bits >> mantissa_bits & (1 << exponent_bits) - 1
    fraction = (bits & (1 << mantissa_bits) - 1) / (1 << mantissa_bits)
    magnitude = np.where(
        exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias)
    )
    if dtype == "float8_e4m3fn":  # "fn": no infinities, one NaN per sign
        magnitude[bits & 0x7F == 0x7F] = np.nan
    else:
        magnitude[exponent == 31] = np.where(fraction[exponent == 31] == 0, np.inf, np.nan)
    return np.where(bits & 0x80, -magnitude, magnitude).astype(np.float32)


def to_torch(block: Array, dtype: str) -> torch.Tensor:
    """Stored values as a torch tensor of exactly that dtype; shares memory with ``block`` where it can."""
    import torch

    block = native(block)
    if not block.flags.writeable or not block.flags.c_contiguous:
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
