"""What the screen proves of a row from a few numbers is what running the row shows, on rows placed at every limit."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from nanhunt.dtypes.convert import torch_dtype
from nanhunt.dtypes.formats import compute_format
from nanhunt.operations.cross_entropy.confirm import Batch, RowTargets, confirm
from nanhunt.operations.cross_entropy.facts import ROW_FIELDS, RowFacts, select
from nanhunt.operations.cross_entropy.forms import Loss
from nanhunt.operations.cross_entropy.screen import Screen, screen

CASTS = [
    ("float32", "float32"), ("float64", "float64"), ("float16", "float16"), ("bfloat16", "bfloat16"),
    ("float32", "float16"), ("float32", "bfloat16"), ("bfloat16", "float32"), ("float64", "float32"),
]  # fmt: skip
NEAR = (0.0, 1e-3, 0.02, 0.05, 0.09, 0.15, 0.3, 1.0, 3.0)
"""How far from a limit a row is placed, on both sides."""
Floats = npt.NDArray[np.float64]


def cliffs(dtype: str, share: float, classes: int) -> list[float]:
    """Logits, or distances of two, at which something of a format begins or ends."""
    form = compute_format(dtype)
    logs = [math.log(form.max), math.log(form.smallest_normal), math.log(form.smallest_subnormal)]
    spread = [0.0, math.log(classes), math.log(share), -math.log(form.unit_roundoff), math.log(2)]
    own = [0.9 * form.exp_limit, 32.0, 32 * math.log(classes), 0.9 * form.max, form.max]
    return [0.0, *own, *(abs(each) + sign * other for each in logs for other in spread for sign in (1, -1))]


@np.errstate(over="ignore")
def rows(dtype: str, share: float, classes: int, seed: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """(rows, classes) whose largest logit and whose label's distance from it stand near cliffs, and the labels."""
    rng = np.random.default_rng(seed)
    limits = np.array(cliffs(dtype, share, classes))
    count = 2000
    at = rng.choice(limits, (2, count)) + rng.choice(NEAR, (2, count)) * rng.choice([1, -1], (2, count))
    top = np.where(rng.random(count) < 0.3, 0.0, at[0] * rng.choice([1, -1], count))
    gap = np.where(rng.random(count) < 0.2, 0.0, np.abs(at[1]))
    below = rng.exponential(rng.choice([0.1, 3.0, 30.0, 300.0], (count, 1)), (count, classes))
    crowded = rng.random((count, 1)) < 0.3
    values = top[:, None] - np.where(crowded, rng.random((count, classes)) * 0.2, below)
    values[np.arange(count), rng.integers(0, classes, count)] = top
    labels = rng.integers(0, classes, count)
    values[np.arange(count), labels] = top - gap
    values[rng.random((count, classes)) < 0.02] = -np.inf
    return values, labels


def wrong(proven: RowFacts, ran: RowFacts) -> list[str]:
    """Names of facts in which the two differ."""
    found = [name for name in ROW_FIELDS if not np.array_equal(getattr(proven, name), getattr(ran, name))]
    return found + [
        f"{name}.{item}"
        for name, behaviour in ran.by.items()
        for item in vars(behaviour)
        if not np.array_equal(getattr(behaviour, item), getattr(proven.by[name], item))
    ]


@pytest.mark.parametrize("share", [1.0, 2e-4])
@pytest.mark.parametrize("classes", [2, 50])
@pytest.mark.parametrize(("stored", "dtype"), CASTS)
def test_what_is_proven_is_what_running_it_shows(stored: str, dtype: str, classes: int, share: float) -> None:
    values, labels = rows(dtype, share, classes, seed=classes)
    cast = torch.from_numpy(values).to(torch_dtype(stored))
    block = cast.view(torch.uint16).numpy() if stored == "bfloat16" else cast.numpy()
    handed = torch.tensor(share, dtype=torch_dtype(compute_format(dtype).name))
    batch = Batch(stored, dtype, Loss(), handed, handed, handed)
    rng = np.random.default_rng(1)
    ignored = rng.random(len(labels)) < 0.1
    bad = ~ignored & (rng.random(len(labels)) < 0.05)
    given = np.where(ignored, -100, np.where(bad, classes, labels))
    for targets in (None, RowTargets(given, ignored, bad)):
        how = Screen(stored, dtype, classes, math.log(float(handed)), targets is not None)
        told = (None, None, None) if targets is None else (given, ignored, bad)
        found = screen(block, *told, how)
        ran = confirm(block, targets or RowTargets(), batch)
        where = np.flatnonzero(found.proven)
        assert len(where) > len(block) / 20
        assert wrong(select(found.facts, where), select(ran.facts, where)) == []
        loss, size = ran.losses["fused"][where], np.abs(values.max(-1))[where]
        slack = 64 * compute_format(dtype).unit_roundoff * np.maximum(1, np.maximum(np.abs(loss), size))
        assert (found.loss_low[where] <= loss + slack).all()
        assert (loss - slack <= found.loss_high[where]).all()


def test_stable_exps_of_many_classes_overflow_float16() -> None:
    rng = np.random.default_rng(0)
    block = (rng.random((4, 70_000)) / 20 - 5.0).astype(np.float16)
    handed = torch.tensor(0.1, dtype=torch.float16)
    labels = np.zeros(4, np.int64)
    ran = confirm(block, RowTargets(labels), Batch("float16", "float16", Loss(), handed, handed, handed))
    assert ran.facts.by["fused"].inf_loss.all()
    assert not ran.facts.by["naive"].inf_loss.any()
    found = screen(block, labels, None, None, Screen("float16", "float16", 70_000, math.log(0.1), True))
    assert not found.proven.any()


def test_a_gradient_that_may_vanish_is_not_proven_to_be_there() -> None:
    classes = 50_000
    block = np.full((1, classes), -2.0, np.float16)
    block[0, 1] = -1.99
    given = np.array([0])
    for share, vanishes in ((3e-4, True), (0.1, False)):
        how = Screen("float16", "float16", classes, math.log(share), True)
        found = screen(block, given, None, None, how)
        handed = torch.tensor(share, dtype=torch.float16)
        ran = confirm(block, RowTargets(given), Batch("float16", "float16", Loss(), handed, handed, handed))
        assert ran.facts.vanished.tolist() == [vanishes]
        assert found.proven.tolist() == [True]
        assert found.facts.vanished.tolist() == [vanishes]


def test_a_row_that_is_left_out_has_no_gradient_to_vanish() -> None:
    block = np.array([[1.0, 2.0, 3.0]] * 2, np.float16)
    how = Screen("float16", "float16", 3, -18.0, True)
    found = screen(block, np.array([0, -100]), np.array([False, True]), None, how)
    assert found.proven.tolist() == [True, True]
    assert found.facts.vanished.tolist() == [True, False]


def test_of_a_probability_that_float32_may_flush_to_0_nothing_is_proven() -> None:
    """exp(-90) is subnormal, and which kernels keep subnormals is the processor's business."""
    how = Screen("float32", "float32", 2, math.log(1e-6), True)
    for gap, proven in ((86.0, True), (90.0, False), (101.0, False)):
        block = np.array([[30.0, 30.0 - gap]], np.float32)
        assert screen(block, np.array([1]), None, None, how).proven.tolist() == [proven]
