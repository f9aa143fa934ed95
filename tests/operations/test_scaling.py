"""float8 with amax scaling, against plain torch: x * scale, cast, / scale."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import nanhunt
from nanhunt.dtypes.formats import FORMATS

FLOAT8 = ("float8_e4m3fn", "float8_e5m2")


def scaled(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """What everyone writes."""
    kind = getattr(torch, dtype)
    scale = torch.finfo(kind).max / x.abs().max()
    return (x * scale).to(kind).float() / scale


def in_blocks(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """The same with a scale for every 128 values of a row."""
    return torch.cat([torch.stack([scaled(row, dtype) for row in part]) for part in x.split(128, -1)], -1)


def logits(spread: float = 30.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(64, 256, generator=generator) * spread, torch.arange(64)


@pytest.mark.parametrize("dtype", FLOAT8)
def test_compare_shows_the_loss_with_a_scale_beside_the_loss_without(dtype: str) -> None:
    x, y = logits(spread=FORMATS[dtype].max * 10)
    plain, with_scale = nanhunt.compare(x, y, dtype=dtype).tensors
    assert (plain.judged_in, with_scale.judged_in) == (dtype, f"{dtype} scaled per tensor")
    assert plain.stored_dtype == with_scale.stored_dtype == "float32"
    for found, seen in ((plain, x.to(getattr(torch, dtype)).float()), (with_scale, scaled(x, dtype))):
        loss = float(F.cross_entropy(seen, y))
        assert found.implementations["fused"].loss == pytest.approx(loss, rel=1e-5, nan_ok=True)
    assert plain.implementations["fused"].loss != pytest.approx(
        with_scale.implementations["fused"].loss, rel=0.1
    )


def test_a_scale_per_block_is_that_of_128_values() -> None:
    x, y = logits()
    x[:, :128] *= 1e-4
    _, found = nanhunt.compare(x, y, dtype="float8_e4m3fn", scaling="block").tensors
    loss = float(F.cross_entropy(in_blocks(x, "float8_e4m3fn"), y))
    assert found.implementations["fused"].loss == pytest.approx(loss, rel=1e-6)


def test_what_saturates_without_a_scale_is_no_fault_of_who_scales() -> None:
    x, y = logits(spread=1.0)
    x[0, 0] = 1000.0
    assert "NH004" not in {each.code for each in nanhunt.check(x, y, dtype="float8_e4m3fn").findings}
    assert "NH004" in {
        each.code for each in nanhunt.check(x, y, dtype="float8_e4m3fn", scaling="none").findings
    }


def test_a_mask_of_infinities_survives_the_scale() -> None:
    x, y = logits(spread=1.0)
    x[:, 100:] = -torch.inf
    report = nanhunt.check(x, y, dtype="float8_e4m3fn", fail_on="error")
    assert report.ok, report


@pytest.mark.parametrize("dtype", FLOAT8)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float64])
def test_weights_lose_what_torch_loses_of_them(dtype: str, stored: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(300, 70, generator=generator) * 10.0 ** torch.linspace(-9, 1, 70)
    x[3, 3] = 5e4
    x = x.to(stored)
    gone = (scaled(x.float(), dtype) == 0) & (x != 0)
    (found,) = nanhunt.check({"w": x}, op="values", dtype=dtype).findings
    assert found.code == "NH502"
    assert found.count == int(gone.sum())
    assert found.rows[0] == int(gone.reshape(-1).nonzero()[0])
    assert f"{found.count:,} of 21,000 values become 0 in {dtype} (below" in found.message


def test_weights_in_blocks_lose_less() -> None:
    x = torch.full((4, 256), 1e-5)
    x[:, :128] = 400.0
    per_tensor = nanhunt.check({"w": x}, op="values", dtype="float8_e4m3fn")
    per_block = nanhunt.check({"w": x}, op="values", dtype="float8_e4m3fn", scaling="block")
    assert [each.count for each in per_tensor.findings] == [512]
    assert per_block.ok
    assert not per_block.findings


def test_the_note_tells_both() -> None:
    x = torch.full((2, 8), 1e-4)
    x[0, 0] = 1000.0
    (told,) = nanhunt.check({"w": x}, op="values", dtype="float8_e4m3fn").tensors
    assert told.notes == (
        "cast to float8_e4m3fn, scaled per tensor by 448 / amax: 0 overflow, 15 become 0, 0 become subnormal; "
        "unscaled: 1 overflow, 15 become 0, 0 become subnormal",
    )


def test_zeros_need_no_scale() -> None:
    assert nanhunt.check(
        {"w": torch.zeros(3, 5), "e": torch.zeros(0, 4)}, op="values", dtype="float8_e5m2"
    ).ok


def test_what_is_stored_in_float8_is_not_scaled() -> None:
    x = torch.ones(2, 4).to(torch.float8_e4m3fn)
    (found,) = nanhunt.compare(x, torch.tensor([0, 1])).tensors
    assert found.scaling == "none"


@pytest.mark.parametrize("op", ["bce", "attention"])
def test_every_operation_scales_its_tensors(op: str) -> None:
    generator = torch.Generator().manual_seed(7)
    if op == "bce":
        tensors = {"logits": torch.randn(50, generator=generator) * 900, "targets": torch.ones(50)}
    else:
        tensors = {
            name: torch.randn(2, 6, 8, generator=generator) * 600 for name in ("query", "key", "value")
        }
    plain, with_scale = nanhunt.compare(tensors, op=op, dtype="float8_e4m3fn").tensors
    assert (plain.scaling, with_scale.scaling) == ("none", "tensor")
    if op == "bce":
        loss = F.binary_cross_entropy_with_logits(
            scaled(tensors["logits"], "float8_e4m3fn"), tensors["targets"]
        )
        assert with_scale.implementations["fused"].loss == pytest.approx(float(loss), rel=1e-5)
    assert "NH004" not in {each.code for each in with_scale.findings}


@pytest.mark.parametrize("scaling", ["tensor", "block"])
def test_how_far_the_loss_moves_is_said(scaling: str) -> None:
    x, y = logits()
    x[5, 7], y[9] = torch.inf, -100
    (found,) = nanhunt.check(x, y, dtype="float8_e4m3fn", scaling=scaling).tensors
    finite = x.where(x.isfinite(), 0)
    back = scaled(finite, "float8_e4m3fn") if scaling == "tensor" else in_blocks(finite, "float8_e4m3fn")
    before, after = (F.cross_entropy(each.double(), y, reduction="none") for each in (finite, back))
    rows = [row for row in range(64) if row not in (5, 9)]
    change = (after - before).abs()[rows]
    assert (
        f"that moves the true mean row loss from {before[rows].mean():.6g} to {after[rows].mean():.6g} over the 62 "
        f"rows where it is finite, that of row {rows[int(change.argmax())]} by {change.max():.3g}"
    ) in found.notes


def test_without_labels_there_is_no_loss_to_move() -> None:
    (found,) = nanhunt.check(logits()[0], dtype="float8_e4m3fn").tensors
    assert not any("moves the true" in note for note in found.notes)


@pytest.mark.parametrize(
    ("dtype", "largest"), [("float8_e4m3fn", 3.4028234663852886e38), ("float8_e5m2", 3.4028230607370965e38)]
)
def test_the_scale_back_may_overflow(dtype: str, largest: float) -> None:
    x = torch.full((2, 4), 1e38)
    x[1, 2] = largest
    assert scaled(x, dtype)[1, 2].isinf()
    lost = [
        each for each in nanhunt.check({"w": x}, op="values", dtype=dtype).findings if each.code == "NH504"
    ]
    assert [(each.count, each.rows) for each in lost] == [(1, (6,))]
