"""Every number of nanhunt/floats.py, derived again with torch: exhaustively up to 16 bits, by neighbours above."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
import torch

from nanhunt.dtypes.formats import FORMATS, compute_format

HALVES = ("bfloat16", "float16")
FLOAT8 = ("float8_e4m3fn", "float8_e5m2")
WIDE = ("float32", "float64")
VECTOR = 64
"""Long enough for the vectorised kernels, which are not the scalar ones at the tail."""


def every_value(dtype: str) -> torch.Tensor:
    """All values of a format of at most 16 bits."""
    bits = 8 if dtype in FLOAT8 else 16
    integer = torch.int8 if bits == 8 else torch.int16
    return torch.arange(-(1 << bits - 1), 1 << bits - 1).to(integer).view(getattr(torch, dtype))


def finite_values(dtype: str) -> torch.Tensor:
    """All finite values, ascending, in float64."""
    values = every_value(dtype).double()
    return values[values.isfinite()].unique()


def exps(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """exp of values of that format, rounded to it, as PyTorch does it: through float32 for float8."""
    kind = getattr(torch, dtype)
    return (
        values.to(kind).float().exp().to(kind).double() if dtype in FLOAT8 else values.to(kind).exp().double()
    )


def scan(around: float, dtype: str, steps: int = 2000) -> torch.Tensor:
    """The ``2 * steps + 1`` neighbouring values around a cliff, ascending."""
    kind = getattr(torch, dtype)
    integer = torch.int32 if dtype == "float32" else torch.int64
    bits = torch.tensor(around, dtype=kind).view(integer) + torch.arange(-steps, steps + 1, dtype=integer)
    return bits.view(kind).sort().values


@pytest.mark.parametrize("dtype", FORMATS)
def test_extremes_are_those_of_torch(dtype: str) -> None:
    fmt, info = FORMATS[dtype], torch.finfo(getattr(torch, dtype))
    assert fmt.name == dtype
    assert fmt.max == info.max
    assert fmt.smallest_normal == info.smallest_normal
    assert fmt.unit_roundoff == info.eps / 2
    assert fmt.smallest_subnormal == info.smallest_normal * info.eps


@pytest.mark.parametrize("dtype", FORMATS)
def test_extremes_are_those_of_ml_dtypes(dtype: str) -> None:
    fmt, info = FORMATS[dtype], ml_dtypes.finfo(dtype)
    assert fmt.max == float(info.max)
    assert fmt.smallest_normal == float(info.smallest_normal)
    assert fmt.smallest_subnormal == float(info.smallest_subnormal)
    assert fmt.unit_roundoff == float(info.eps) / 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e5m2"])
def test_overflow_is_the_smallest_float32_magnitude_that_the_cast_makes_infinite(dtype: str) -> None:
    limit, kind = np.float32(FORMATS[dtype].overflow), getattr(torch, dtype)
    below = np.nextafter(limit, np.float32(0))
    assert torch.tensor([limit, -limit] * VECTOR).to(kind).float().isinf().all()
    assert not torch.tensor([below, -below] * VECTOR).to(kind).float().isinf().any()


def test_overflow_of_float32_is_the_smallest_float64_magnitude_that_the_cast_makes_infinite() -> None:
    limit = FORMATS["float32"].overflow
    below = math.nextafter(limit, 0.0)
    assert torch.tensor([limit, -limit] * VECTOR, dtype=torch.float64).float().isinf().all()
    assert not torch.tensor([below, -below] * VECTOR, dtype=torch.float64).float().isinf().any()


def test_float64_reaches_half_formats_through_float32() -> None:
    """PyTorch rounds twice, so a float64 just below the limit overflows all the same."""
    below = math.nextafter(FORMATS["float16"].overflow, 0.0)
    assert torch.tensor([below] * VECTOR, dtype=torch.float64).half().isinf().all()


def test_nothing_casts_to_an_infinite_float64() -> None:
    assert FORMATS["float64"].overflow == math.inf


def test_e4m3fn_saturates_beyond_its_overflow_even_at_infinity() -> None:
    limit = FORMATS["float8_e4m3fn"].overflow
    kind = torch.float8_e4m3fn
    assert float(torch.tensor(limit).to(kind).float()) == FORMATS["float8_e4m3fn"].max
    assert float(torch.tensor(1e30).to(kind).float()) == FORMATS["float8_e4m3fn"].max
    assert float(torch.tensor(math.inf).to(kind).float()) == FORMATS["float8_e4m3fn"].max
    # ml_dtypes does not saturate: it draws the line between what rounds to 448 and what does not.
    assert float(np.float32(limit).astype(ml_dtypes.float8_e4m3fn)) == FORMATS["float8_e4m3fn"].max
    assert math.isnan(float(np.nextafter(np.float32(limit), np.float32(1e9)).astype(ml_dtypes.float8_e4m3fn)))


@pytest.mark.parametrize("dtype", (*HALVES, *FLOAT8))
def test_exp_limits_over_every_value(dtype: str) -> None:
    fmt, x = FORMATS[dtype], finite_values(dtype)
    # e4m3fn saturates instead of overflowing, so its exp is judged before the cast.
    raw = x.float().exp().double()
    finite = raw <= fmt.overflow if dtype == "float8_e4m3fn" else exps(x, dtype).isfinite()
    assert float(x[finite].max()) == fmt.exp_limit
    assert float(x[exps(x, dtype) >= fmt.smallest_normal].min()) == fmt.exp_normal
    assert float(x[exps(x, dtype) > 0].min()) == fmt.exp_zero


@pytest.mark.parametrize("dtype", HALVES)
def test_half_exp_is_float32_exp_rounded_once(dtype: str) -> None:
    x = finite_values(dtype)
    assert torch.equal(exps(x, dtype), x.float().exp().to(getattr(torch, dtype)).double())


@pytest.mark.parametrize("dtype", HALVES)
def test_half_exp_of_single_values_agrees_with_long_tensors(dtype: str) -> None:
    x = finite_values(dtype).to(getattr(torch, dtype))
    cliffs = [FORMATS[dtype].exp_limit, FORMATS[dtype].exp_normal, FORMATS[dtype].exp_zero]
    near = x[torch.stack([(x.double() - cliff).abs() < 3 for cliff in cliffs]).any(0)]
    assert len(near) > 3 * 8
    assert torch.equal(near.exp(), torch.cat([value[None].exp() for value in near]))


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("cliff", ["exp_limit", "exp_normal", "exp_zero"])
def test_exp_cliffs_by_neighbouring_values(dtype: str, cliff: str) -> None:
    """In the vectorised kernel (a long tensor) and in the scalar one (single values)."""
    fmt = FORMATS[dtype]
    limit = getattr(fmt, cliff)
    x = scan(limit, dtype)
    near = (x - limit).abs() <= 4 * abs(x[1] - x[0])
    for values, e in ((x, x.exp()), (x[near], torch.cat([value[None].exp() for value in x[near]]))):
        if cliff == "exp_limit":
            assert float(values[e.isfinite()].max()) == limit
            assert e[values > limit].isinf().all()
        else:
            least = fmt.smallest_normal if cliff == "exp_normal" else 0.0
            holds = e >= least if cliff == "exp_normal" else e > 0
            assert float(values[holds].min()) == limit
            assert (e[values < limit] < fmt.smallest_normal).all()


@pytest.mark.parametrize("dtype", FORMATS)
def test_float8_computes_in_float32_and_the_rest_in_itself(dtype: str) -> None:
    expected = "float32" if dtype in FLOAT8 else dtype
    assert compute_format(dtype).name == expected
    if dtype in FLOAT8:
        with pytest.raises(NotImplementedError):
            torch.ones(2).to(getattr(torch, dtype)).exp()
    else:
        assert torch.ones(2, dtype=getattr(torch, dtype)).exp().dtype == getattr(torch, dtype)
