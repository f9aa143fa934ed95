"""Tensors that are not logits: what a cast loses, against torch's own cast of every value."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import nanhunt
from nanhunt.dtypes.convert import to_torch
from nanhunt.dtypes.formats import DTYPES, FORMATS
from nanhunt.load.tensor import BITS, Tensor
from nanhunt.operations.options import JudgeOptions
from nanhunt.operations.rules import RULES, chosen
from nanhunt.operations.values.check import check_values
from nanhunt.parallel import Fastest
from nanhunt.results.tensor import TensorReport


def judged(data: np.ndarray, stored: str, dtype: str, **options: object) -> TensorReport:
    """The health check of values in memory."""
    tensor = Tensor("w.pt", "layer.weight", stored, data.shape, lambda: data)
    ((_, reports),) = check_values(
        (tensor,), lambda _: (dtype,), JudgeOptions(**options), frozenset(RULES), lambda _: None, Fastest()
    )
    assert not isinstance(reports, Exception)
    return reports[0]


def edges(stored: str) -> np.ndarray:
    """Values around every limit of every format, as that dtype holds them."""
    limits = [
        limit * factor
        for fmt in FORMATS.values()
        for limit in (
            fmt.max,
            fmt.overflow,
            fmt.smallest_normal,
            fmt.smallest_subnormal,
            fmt.smallest_subnormal / 2,
        )
        for factor in (1.0, -1.0, 1 - 2.0**-52, 1 + 2.0**-52, 1 - 2.0**-23, 1 + 2.0**-23, 0.75, 1.25)
        if math.isfinite(limit * factor)
    ]
    values = [*limits, 0.0, -0.0, 1.0, math.nan, math.inf, -math.inf]
    return torch.tensor(values, dtype=torch.float64).to(getattr(torch, stored))


def stored_bits(tensor: torch.Tensor, stored: str) -> np.ndarray:
    """A tensor as NumPy holds it: bits for the formats it lacks."""
    if stored not in BITS:
        return tensor.numpy()
    carrier = {"uint16": torch.int16, "uint8": torch.uint8}[BITS[stored]]
    return tensor.view(carrier).numpy().view(BITS[stored])


@pytest.mark.parametrize(
    ("stored", "dtype"), [pair for pair in itertools.product(DTYPES, DTYPES) if pair[0] != pair[1]]
)
def test_a_cast_loses_exactly_what_torch_loses(stored: str, dtype: str) -> None:
    data = stored_bits(edges(stored), stored)
    report = judged(data, stored, dtype, max_rows=10_000, scaling="none")
    before = to_torch(data, stored)
    before = before if before.dtype.itemsize > 1 else before.float()
    after = before.to(getattr(torch, dtype)).double()
    was_finite, size = before.isfinite(), before.double().abs()
    if dtype == "float8_e4m3fn":
        overflow = was_finite & (after.abs() == FORMATS[dtype].max) & (size.float() > FORMATS[dtype].overflow)
    else:
        overflow = was_finite & after.isinf()
    flushed = (size > 0) & (after == 0)
    subnormal = (
        (size >= FORMATS[stored].smallest_normal)
        & (after != 0)
        & (after.abs() < FORMATS[dtype].smallest_normal)
    )
    found = {finding.code: finding for finding in report.findings}
    assert found["NH501"].count == int((~was_finite).sum())
    assert list(found["NH501"].rows) == (~was_finite).nonzero()[:, 0].tolist()
    for code, kind in (("NH502", flushed), ("NH504", overflow)):
        lost = kind.nonzero()[:, 0].tolist()
        assert (found[code].count if lost else 0) == len(lost)
        assert (list(found[code].rows) if lost else []) == lost
    counted = [int(kind.sum()) for kind in (overflow, flushed, subnormal)]
    note = "{:,} overflow, {:,} become 0, {:,} become subnormal".format(*counted)
    assert note in report.notes[0]


def test_health_figures_are_not_spoilt_by_one_nan() -> None:
    report = judged(
        np.array([[1.0, math.nan], [-3.0, math.inf], [0.0, 1e-42]], np.float32), "float32", "float32"
    )
    health = report.health
    assert (health.nan, health.posinf, health.neginf, health.zero, health.subnormal) == (1, 1, 0, 1, 1)
    assert (health.min, health.max) == (-3.0, 1.0)
    assert report.findings[0].code == "NH501"
    assert report.findings[0].rows == (1, 3)
    assert "[0, 1]" in report.findings[0].message


@pytest.mark.parametrize("order", ["C", "F"])
def test_positions_are_flat_in_c_order_whatever_the_layout(order: str) -> None:
    data = np.zeros((3, 4, 5), np.float32, order=order)  # type: ignore[call-overload]
    data[1, 2, 3] = data[2, 0, 1] = math.nan
    assert judged(data, "float32", "float32").findings[0].rows == (1 * 20 + 2 * 5 + 3, 2 * 20 + 1)


def test_bad_positions_go_on_over_blocks() -> None:
    data = np.zeros(1 << 19, np.float32)
    where = [3, (1 << 18) - 1, 1 << 18, (1 << 19) - 1]
    data[where] = math.inf
    assert judged(data, "float32", "float16", max_rows=10).findings[0].rows == tuple(where)


def test_weights_in_a_checkpoint_are_judged_as_values(tmp_path: object) -> None:
    path = f"{tmp_path}/ckpt.pt"
    torch.save({"model": {"weight": torch.full((4, 4), 1e5), "bias": torch.ones(4)}}, path)
    report = nanhunt.check(path, dtype="float16")
    roles = {tensor.tensor: tensor.role for tensor in report.tensors}
    assert roles == {"model.bias": "values", "model.weight": "values"}
    (finding,) = report.findings
    assert (finding.code, finding.severity, report.exit_code) == ("NH504", "error", 1)
    assert "the first at [0, 0]" in finding.message
    (fix,) = finding.remedies
    assert (fix.works, fix.rows, fix.bad_rows_after) == (True, 10, 0)
    assert "rounded to 8 bits" in fix.changes
    scope = {"torch": torch, "tensor": torch.full((4, 4), 1e5)}
    exec(fix.snippet, scope)
    assert bool(scope["output"].isfinite().all())


def flushing(few: int, size: float = 1e-9, largest: float = 0.02) -> TensorReport:
    """1,000 weights up to ``largest``, of which ``few`` have ``size``, cast to float16."""
    data = np.linspace(largest / 200, largest, 1000, dtype=np.float32)
    data[3 : 3 + few] = size
    return judged(data, "float32", "float16")


@pytest.mark.parametrize(
    ("few", "largest", "severity"),
    [
        (1, 0.02, "note"), (10, 0.02, "note"), (11, 0.02, "warning"), (2, 5e-5, "note"), (3, 5e-5, "warning"),
    ],
)  # fmt: skip
def test_a_few_values_that_become_0_are_a_note_unless_they_carry_weight(
    few: int, largest: float, severity: str
) -> None:
    (finding,) = flushing(few, largest=largest).findings
    assert (finding.code, finding.count, finding.severity) == ("NH502", few, severity)
    assert finding.rows[0] == 3
    # bfloat16 keeps them, and rounds everything else eight times as much: not for a few.
    assert [fix.works for fix in finding.remedies] == ([True] if severity == "warning" else [])


def test_values_that_bfloat16_loses_as_well_have_no_fix_that_works() -> None:
    (finding,) = judged(np.full(100, 1e-42, np.float64), "float64", "float16").findings
    assert [fix.works for fix in finding.remedies] == [False]
    assert finding.remedies[0].outcome == "still lost in torch.bfloat16"
    assert finding.remedies[0].bad_rows_after == 10
    assert not judged(np.full(100, 1e-42, np.float64), "float64", "bfloat16").findings[0].remedies


def test_values_that_overflow_bfloat16_as_well_have_no_fix_that_works() -> None:
    (finding,) = judged(np.array([1.0, 1e300]), "float64", "float16").findings
    assert (finding.code, [fix.works for fix in finding.remedies]) == ("NH504", [False])


def test_the_first_number_that_overflows_is_one_and_the_last_that_does_not_is_none() -> None:
    halfway = np.float32(65520.0)  # between the largest float16 and what would come after it: ties go up
    for value in (halfway, np.nextafter(halfway, np.float32(0))):
        data = np.array([1.0, value], np.float32)
        overflows = bool(torch.from_numpy(data).half().isinf().any())
        assert bool(judged(data, "float32", "float16").findings) is overflows is bool(value == halfway)


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq", "momentum_buffer"])
def test_moments_are_judged_for_a_cast_only_on_request(name: str) -> None:
    moments = np.full(100, 1e-9, np.float32)
    tensor = Tensor("ckpt.pt", f"optimizer.state.0.{name}", "float32", moments.shape, lambda: moments)

    def found(**options: tuple[str, ...]) -> TensorReport:
        given = JudgeOptions(**options)
        ((_, reports),) = check_values(
            (tensor,),
            lambda _: ("float16",),
            given,
            chosen("values", given.select, ()),
            lambda _: None,
            Fastest(),
        )
        assert not isinstance(reports, Exception)
        return reports[0]

    assert found().findings == ()
    assert any("--select" in note for note in found().notes)
    assert [finding.code for finding in found(select=("NH502",)).findings] == ["NH502"]


@pytest.mark.parametrize("layout", ["C", "F", "strided", "transposed"])
@pytest.mark.parametrize("chunk", [8, 64, 200, 1 << 22])
def test_chunks_threads_and_layout_change_nothing(
    layout: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    plain = rng.choice(
        np.array([0, 1e-42, 1e-9, 1e-6, 0.5, -3, 1e6, math.nan, -math.inf], np.float32), (6, 5, 7)
    )
    data = {
        "C": plain,
        "F": np.asfortranarray(plain),
        "strided": np.repeat(plain, 2, axis=2)[:, :, ::2],
        "transposed": np.ascontiguousarray(plain.transpose(2, 0, 1)).transpose(1, 2, 0),
    }[layout]
    assert np.array_equal(data, plain, equal_nan=True)
    whole = judged(plain, "float32", "float16", max_rows=7)
    monkeypatch.setattr("nanhunt.operations.values.check.BATCH_BYTES", chunk)
    monkeypatch.setattr("nanhunt.operations.values.check.SMALL_VALUES", chunk)
    assert judged(data, "float32", "float16", max_rows=7) == whole


def test_a_file_of_nothing_but_refused_tensors_says_why(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"w": torch.zeros(1).expand(1 << 20, 1 << 20)}, path)
    for op in (None, "values"):
        report = nanhunt.check(path, op=op)
        assert not report.tensors
        (error,) = report.errors
        assert "again and again" in error.message


@pytest.mark.parametrize(("dtype", "small"), [("float16", 1e-9), ("bfloat16", 1e-45)])
def test_a_note_of_a_cast_points_at_no_other_finding(dtype: str, small: float) -> None:
    values = np.ones((64, 64), np.float32)
    values[3, 5] = small
    text = str(nanhunt.check({"layer.weight": values}, dtype=dtype))
    assert "cast-loss (NH502), note" in text
    assert "What to do: Keep this tensor in float32" in text
