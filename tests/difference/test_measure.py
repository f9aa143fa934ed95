"""Blocks of two tensors against each other: checked with NumPy, torch and numbers counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nanhunt.difference.measure import CHUNK, measure, sums_of_equal
from nanhunt.difference.measured import Measured, Tolerance, narrower, rounding, steps_at
from nanhunt.dtypes.formats import FORMATS

FLOAT32 = Tolerance(FORMATS["float32"], 4.0)
BOTH = ("float32", "float32")


def measured(a, b, tolerance=FLOAT32, dtypes=BOTH) -> Measured:
    return measure(np.asarray(a, np.float32), np.asarray(b, np.float32), dtypes, 0, tolerance, 10)


def test_kinds_are_counted_with_their_places() -> None:
    inf, nan = np.inf, np.nan
    found = measured([1, inf, inf, nan, nan, 2, -inf, 0], [1, -inf, inf, nan, 3, nan, nan, 5])
    counts = {kinds: (places.count, places.first) for kinds, places in found.kinds.items()}
    assert counts == {
        ("+inf", "-inf"): (1, (1,)), ("NaN", "finite"): (1, (4,)), ("finite", "NaN"): (1, (5,)),
        ("-inf", "NaN"): (1, (6,)),
    }  # fmt: skip
    assert (found.differing.count, found.changed_kind, found.nonfinite_in_both) == (5, 4, 2)
    assert (found.absolute.value, found.absolute.position) == (5.0, 7)  # beside the NaN, not hidden by it


def test_the_largest_are_where_numpy_says() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal(3 * CHUNK + 5).astype(np.float32)
    b = (a + rng.standard_normal(a.size).astype(np.float32) * 1e-3).astype(np.float32)
    found = measured(a, b)
    distance = np.abs(a.astype(np.float64) - b)
    assert (found.absolute.value, found.absolute.position) == (distance.max(), distance.argmax())
    relative = distance / np.maximum(np.abs(a), np.abs(b))
    assert (found.relative.value, found.relative.position) == pytest.approx(
        (relative.max(), relative.argmax())
    )
    cosine = torch.nn.functional.cosine_similarity(torch.tensor(a).double(), torch.tensor(b).double(), dim=0)
    assert found.sums.cosine == pytest.approx(float(cosine), rel=1e-14)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_step_is_the_distance_to_the_next_number(dtype: str) -> None:
    kind = getattr(torch, dtype)
    values = torch.tensor([1.0, 1.5, 2.0, 3.999, 1e-3, 6e4, 1e-7, 0.0], dtype=kind)
    after = torch.nextafter(values, torch.tensor(torch.inf, dtype=kind)) - values
    assert steps_at(values.double().numpy(), FORMATS[dtype]).tolist() == after.double().tolist()


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(np.float32, 30, elements=st.floats(width=32)), st.integers(0, 30))
def test_parts_add_up_in_any_order(a, cut) -> None:
    b = np.roll(a, 1)
    whole = measured(a, b)
    one, other = (
        measure(a[part], b[part], BOTH, part.start, FLOAT32, 10) for part in (slice(0, cut), slice(cut, 30))
    )
    for both in (one + other, other + one):
        assert (both.differing, both.absolute, both.ulp) == (whole.differing, whole.absolute, whole.ulp)
        assert (both.outside, both.kinds, both.values) == (whole.outside, whole.kinds, whole.values)


def test_what_is_equal_is_only_compared_until_its_sums_are_wanted() -> None:
    a = np.arange(1, 2 * CHUNK + 1, dtype=np.float32)
    b = a.copy()
    b[-1] = 0
    found = measured(a, b)
    assert found.equal == ((0, CHUNK),)
    total = found.sums + sums_of_equal(a[:CHUNK], "float32")
    assert total.count == a.size
    assert total.dot == pytest.approx(float(a.astype(np.float64) @ b.astype(np.float64)), rel=1e-14)


def test_zeros_of_either_sign_and_nans_of_other_bits_are_the_same_numbers() -> None:
    a = np.array([0.0, np.nan], np.float32)
    b = np.array([0x80000000, 0x7FC00001], np.uint32).view(np.float32)
    found = measured(a, b)
    assert found.differing.count == 0
    assert not found.identical


def test_values_near_zero_may_err_by_steps_of_the_mean() -> None:
    """A sum that cancels errs relative to its terms: many ULP of the value, few of the tensor's magnitude."""
    a = np.ones(1000)
    b = a.copy()
    a[7], b[7] = 1e-6, 1e-6 + 2e-7
    strict, kind = FLOAT32, rounding(FORMATS["float32"])
    found = measured(a, b)
    assert found.beyond(strict).first == (7,)
    assert found.beyond(kind).count == 0
    b[8] = 1 + 1e-5  # 84 steps
    assert measured(a, b).beyond(kind).first == (8,)


def test_an_outlier_makes_no_room_for_itself() -> None:
    a = np.ones(1000)
    b = a.copy()
    b[3] = 1e30
    assert measured(a, b).beyond(rounding(FORMATS["float32"])).first == (3,)


def test_tolerances_are_those_of_assert_close() -> None:
    a, b = np.array([1.0, 100.0, 0.0]), np.array([1.0 + 2e-3, 100.05, 1e-3])
    found = measured(a, b, Tolerance(None, None, rtol=1e-3, atol=5e-4))
    close = torch.isclose(
        torch.tensor(b, dtype=torch.float32), torch.tensor(a, dtype=torch.float32), 1e-3, 5e-4
    )
    assert found.beyond(Tolerance(None, None)).first == tuple(np.flatnonzero(~close.numpy()))


def test_integers_are_compared_as_they_are() -> None:
    a = np.array([1, 2, 3])
    found = measure(
        a, np.array([1, 2, 4]), ("int64", "int64"), 0, Tolerance(narrower("int64", "int64"), 4.0), 10
    )
    assert found.beyond(Tolerance(None, 4.0)).first == (2,)
    assert found.ulp.position == -1


def test_the_format_with_fewer_digits_counts() -> None:
    assert narrower("float32", "bfloat16") == FORMATS["bfloat16"]
    assert narrower("float16", "bfloat16") == FORMATS["bfloat16"]
    assert narrower("float32", "int8") is None


def test_the_largest_numbers_do_not_overflow() -> None:
    found = measure(
        np.array([1.7e308]),
        np.array([-1.7e308]),
        ("float64", "float64"),
        0,
        Tolerance(FORMATS["float64"], 4.0),
        10,
    )
    assert found.absolute.value == np.inf
    assert found.beyond(rounding(FORMATS["float64"])).count == 1


@settings(max_examples=100, deadline=None)
@given(
    arrays.arrays(np.uint32, (2, 40), elements=st.integers(0, 2**32 - 1)),
    st.sampled_from(["float32", "bfloat16"]),
)
def test_work_in_float32_finds_what_float64_finds(bits, format_name) -> None:
    """Any bits: subnormal numbers, differences too large for float32, NaN; half of the values some ULP apart."""
    a = bits[0].view(np.float32)
    b = np.where(np.arange(40) % 2, bits[1], bits[0] + bits[1] % 16).astype(np.uint32).view(np.float32)
    form = FORMATS[format_name]
    found = measured(a, b, Tolerance(form, 4.0))
    with np.errstate(invalid="ignore"):  # signalling NaN is cast, and inf subtracted from inf
        one, other = a.astype(np.float64), b.astype(np.float64)
        both = np.flatnonzero(np.isfinite(one) & np.isfinite(other) & (one != other))
        distance = np.abs(one - other)[both]
    steps = steps_at(np.maximum(np.abs(one), np.abs(other))[both], form)
    assert found.beyond(Tolerance(None, None)).count == int((distance / steps > 4).sum())
    if both.size:
        assert (found.absolute.value, found.absolute.position) == (distance.max(), both[distance.argmax()])
        assert (found.ulp.value, found.ulp.position) == (
            (distance / steps).max(),
            both[(distance / steps).argmax()],
        )
        relative = np.minimum(distance / np.maximum(np.abs(one), np.abs(other))[both], 2)
        assert (found.relative.value, found.relative.position) == (relative.max(), both[relative.argmax()])


def test_positions_of_each_exponent_are_those_of_the_first_values_over_many_chunks() -> None:
    rng = np.random.default_rng(2)
    a = rng.standard_normal(2 * CHUNK + 100).astype(np.float32)
    b = (a + rng.standard_normal(a.size) * 1e-3).astype(np.float32)
    found = measured(a, b, Tolerance(FORMATS["float32"], 0.0))
    exponents = np.frexp(np.abs(a.astype(np.float64) - b))[1]
    assert sum(places.count for places in found.outside.values()) == int((a != b).sum())
    for exponent, places in found.outside.items():
        where = np.flatnonzero((exponents == exponent) & (a != b))
        assert (places.count, places.first) == (where.size, tuple(where[:10]))
