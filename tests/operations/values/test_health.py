"""Counts and extremes against plain NumPy over every bit pattern; one NaN never spoils the other figures."""

from __future__ import annotations

import math
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanhunt.dtypes.bits import cast_limits, layout
from nanhunt.dtypes.convert import to_floats, to_torch, torch_dtype
from nanhunt.dtypes.formats import DTYPES, FORMATS
from nanhunt.load.tensor import BITS
from nanhunt.operations.values import health
from nanhunt.operations.values.health import Counts, count, measure


def reference(values: np.ndarray, smallest_normal: float) -> Counts:
    """Straight NumPy, value by value where it is clearer."""
    finite = values[np.isfinite(values)]
    size = np.abs(finite)
    return Counts(
        int(np.isnan(values).sum()), int((values == math.inf).sum()), int((values == -math.inf).sum()),
        int((finite == 0).sum()), int(((size > 0) & (size < smallest_normal)).sum()),
        float(min(finite, default=math.inf)), float(max(finite, default=-math.inf)),
    )  # fmt: skip


def counted(block: np.ndarray, dtype: str) -> Counts:
    """All but the sum of the bits, which has a test of its own."""
    return replace(count(block, dtype), bits=0)


@pytest.mark.parametrize("dtype", ["float16", *BITS])
def test_every_pattern(dtype: str) -> None:
    carrier = np.dtype(BITS.get(dtype, "uint16"))
    bits = np.arange(1 << 8 * carrier.itemsize, dtype=np.uint32).astype(carrier)
    kind = np.float16 if dtype == "float16" else getattr(ml_dtypes, dtype)
    with np.errstate(invalid="ignore"):  # signalling NaNs complain when they are widened
        values = bits.view(kind).astype(np.float64)
    block = bits.view(np.float16) if dtype == "float16" else bits
    assert counted(block, dtype) == reference(values, float(ml_dtypes.finfo(kind).smallest_normal))


CASES = {
    "clean": [1.0, -2.0, 0.0, -0.0, 1e-40, 3.0],
    "nan": [math.nan, -2.0, 0.0, 1e-40, 7.0],
    "infinities": [math.inf, -math.inf, math.inf, 5.0],
    "nothing finite": [math.nan, math.inf],
    "minus infinity only": [-math.inf, -math.inf],
    "tiny": [1e-45, -1e-45, 2.0**-126, -(2.0**-126)],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_wide_formats(dtype: str, case: str) -> None:
    values = np.array(CASES[case], dtype=dtype)
    assert counted(values, dtype) == reference(values, float(np.finfo(dtype).smallest_normal))


def test_two_ranges_add_up_to_both() -> None:
    values = np.array([math.nan, 1.0, -4.0, 0.0, math.inf, 2.0, 1e-42, -math.inf], dtype=np.float32)
    whole = count(values, "float32")
    for cut in range(len(values) + 1):
        assert count(values[:cut], "float32") + count(values[cut:], "float32") == whole


def test_nothing_has_no_extremes() -> None:
    assert count(np.zeros((0, 3), np.float32), "float32") == Counts()


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_one_pass_knows_what_plain_numpy_knows(data: st.DataObject) -> None:
    """Counts and casts of drawn bits, at part sizes that cut anywhere, against values converted one by one."""
    stored, dtype = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(DTYPES))
    carrier = layout(stored).carrier
    bits = data.draw(patterns(stored, dtype))
    flat = np.array(bits, carrier)
    block = flat if stored in BITS else flat.view(stored)
    size, most = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 5))
    with np.errstate(invalid="ignore"):
        values = to_floats(block, stored).astype(np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health, "PART_BYTES", size * carrier.itemsize)
        found = measure(block, stored, dtype, start=7, most=most)
    assert replace(found.counts, bits=0) == reference(values, FORMATS[stored].smallest_normal)
    expected = cast_reference(block, values, stored, dtype)
    overflow, flushed = (7 + np.flatnonzero(kind) for kind in expected[:2])
    figures = (found.casting.overflow, found.casting.zero, found.casting.subnormal)
    assert figures == tuple(int(kind.sum()) for kind in expected)
    assert found.casting.first_overflow == tuple(overflow[:most].tolist())
    assert found.casting.first_zero == tuple(flushed[:most].tolist())
    assert found.first_nonfinite == tuple((7 + np.flatnonzero(~np.isfinite(values)))[:most].tolist())


@st.composite
def patterns(draw: st.DrawFn, stored: str, dtype: str) -> list[int]:
    """Bits on both sides of every limit, zeros, infinities, NaNs, and any others; often many alike."""
    form, limits = layout(stored), cast_limits(stored, dtype)
    known = (
        1, limits.flushed_below, limits.subnormal_from, limits.subnormal_below, limits.overflow_from,
        form.smallest_normal, form.largest, form.largest + 1,
    )  # fmt: skip
    near = st.sampled_from(
        sorted({each + step for each in known for step in (-1, 0, 1) if each + step < form.sign})
    )
    one = st.tuples(near | st.integers(0, form.sign - 1), st.booleans()).map(
        lambda pair: pair[0] + form.sign * pair[1]
    )
    some = draw(st.lists(one, min_size=1, max_size=40))
    return some * draw(st.integers(1, 4)) + [form.smallest_normal] * draw(st.integers(0, 60))


def cast_reference(
    block: np.ndarray, values: np.ndarray, stored: str, dtype: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(overflows, becomes 0, becomes subnormal), from what torch's own cast makes of every value."""
    if stored == dtype:
        nothing = np.zeros(len(values), bool)
        return nothing, nothing, nothing
    before = to_torch(block, stored)
    before = before if before.dtype.itemsize > 1 else before.float()  # float8 to float8 goes through float32
    after = before.to(torch_dtype(dtype)).double().numpy()
    finite, size = np.isfinite(values), np.abs(values)
    overflow = finite & ~np.isfinite(after)
    if dtype == "float8_e4m3fn":  # saturates
        with np.errstate(over="ignore", invalid="ignore"):
            overflow = finite & (size.astype(np.float32) > FORMATS[dtype].overflow)
    subnormal = (size >= FORMATS[stored].smallest_normal) & (after != 0)
    subnormal &= np.abs(after) < FORMATS[dtype].smallest_normal
    return overflow, (size > 0) & (after == 0), subnormal


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64", "float8_e4m3fn"])
def test_the_sum_of_bits_is_that_of_words_and_adds_up(dtype: str) -> None:
    """Also where the last word is not whole, and where values lie apart in memory."""

    def counts_of(values: np.ndarray) -> Counts:
        return measure(values, dtype, dtype).counts

    carrier = layout(dtype).carrier
    bits = np.random.default_rng(5).integers(0, 256, 1003 * carrier.itemsize, np.uint8).view(carrier)
    values = bits.view(dtype) if FORMATS[dtype].in_numpy else bits
    padded = np.concatenate([bits.view(np.uint8), np.zeros(-bits.nbytes % 4, np.uint8)])
    expected = sum(padded.view(np.uint32).tolist()) % 2**32
    assert counts_of(values).bits == expected
    assert (counts_of(values[:400]) + counts_of(values[400:])).bits == expected
    assert counts_of(np.stack([values, values], axis=1)[:, 0]).bits == expected
    values[7] = values[8]
    assert counts_of(values).bits != expected
    assert count(values, dtype).bits is None  # a block of rows is asked for counts only
