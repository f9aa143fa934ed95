"""Bits to numbers and back, over every bit pattern, against ml_dtypes and torch."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from nanhunt.dtypes.convert import native, to_floats, to_torch, torch_dtype
from nanhunt.dtypes.formats import DTYPES
from nanhunt.load.tensor import BITS


def every_pattern(dtype: str) -> np.ndarray:
    """All bit patterns of a format of at most 16 bits, as it is stored in memory."""
    if dtype == "float16":
        return np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    carrier = np.dtype(BITS[dtype])
    return np.arange(1 << 8 * carrier.itemsize, dtype=np.uint32).astype(carrier)


def same(one: np.ndarray, two: np.ndarray) -> bool:
    """Equal values and signs of zero, NaN equal to NaN."""
    return bool(
        np.array_equal(one, two, equal_nan=True)
        and np.array_equal(np.signbit(one)[~np.isnan(one)], np.signbit(two)[~np.isnan(two)])
    )


@pytest.mark.parametrize("dtype", BITS)
def test_every_pattern_is_what_ml_dtypes_reads(dtype: str) -> None:
    bits = every_pattern(dtype)
    expected = bits.view(getattr(ml_dtypes, dtype)).astype(np.float32)
    assert to_floats(bits, dtype).dtype == np.float32
    assert same(to_floats(bits, dtype), expected)


@pytest.mark.parametrize("dtype", ["float16", *BITS])
def test_every_pattern_is_what_torch_reads(dtype: str) -> None:
    bits = every_pattern(dtype)
    tensor = to_torch(bits, dtype)
    assert tensor.dtype == getattr(torch, dtype)
    assert same(to_floats(bits, dtype), tensor.float().numpy())


@pytest.mark.parametrize("dtype", ["float16", *BITS])
def test_to_torch_keeps_every_bit(dtype: str) -> None:
    bits = every_pattern(dtype)
    integer = torch.int16 if bits.itemsize == 2 else torch.int8
    wanted = bits.view(np.int16 if bits.itemsize == 2 else np.int8)
    assert np.array_equal(to_torch(bits, dtype).view(integer).numpy(), wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wide_formats_are_passed_through(dtype: str) -> None:
    block = np.array([[1.5, np.nan, -np.inf]], dtype=dtype)
    assert to_floats(block, dtype) is block
    assert to_torch(block, dtype).data_ptr() == block.ctypes.data


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_the_other_byte_order_is_turned(dtype: str) -> None:
    block = every_pattern(dtype) if dtype in ("float16", "bfloat16") else np.array([1.5, -3e-5], dtype)
    swapped = block.astype(block.dtype.newbyteorder())
    assert not swapped.dtype.isnative
    assert native(block) is block
    assert same(to_floats(swapped, dtype), to_floats(block, dtype))
    assert same(to_torch(swapped, dtype).double().numpy(), to_torch(block, dtype).double().numpy())


def test_read_only_and_reversed_blocks_are_copied_without_a_warning() -> None:
    block = np.arange(6, dtype=np.float32).reshape(2, 3)
    block.flags.writeable = False
    assert to_torch(block, "float32").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert to_torch(block[:, ::-1], "float32").tolist() == [[2, 1, 0], [5, 4, 3]]


@pytest.mark.parametrize("rows", [0, 1])
def test_a_reversed_array_of_one_row_or_none_is_contiguous_and_copied_all_the_same(rows: int) -> None:
    block = np.arange(10, dtype=np.float32).reshape(2, 5)[::-1][:rows]
    assert block.flags.c_contiguous
    assert to_torch(block, "float32").tolist() == block.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_dtype_has_that_name(dtype: str) -> None:
    assert str(torch_dtype(dtype)) == f"torch.{dtype}"
