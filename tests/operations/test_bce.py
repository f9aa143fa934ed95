"""--op bce against plain PyTorch, on both sides of every cliff; its fixes run from their printed text."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nanhunt.errors import NanhuntError
from nanhunt.operations.bce.operation import BCE
from nanhunt.operations.bce.options import BceOptions
from nanhunt.results.report import Severity

CLIFFS = (
    0.0,
    1.0,
    5.5,
    6.25,
    8.3,
    8.4,
    11.09,
    16.6,
    16.64,
    17.3,
    36.7,
    37.0,
    88.7,
    89.0,
    103.9,
    104.5,
    700.0,
    746.0,
)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def seen(x: torch.Tensor, y: torch.Tensor, loss, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(values, gradients) of a loss as PyTorch computes them."""
    leaf = x.detach().clone().requires_grad_()
    values = loss(leaf, y)
    (values * torch.tensor(scale).to(values.dtype)).sum().backward()
    return values.detach().double().numpy(), leaf.grad.double().numpy()


def naive(x, y):
    s = torch.sigmoid(x)
    return -(y * s.log() + (1 - y) * (1 - s).log())


def fused(x, y):
    return F.binary_cross_entropy_with_logits(x, y, reduction="none")


def rows(report, *severities):
    return {row for finding in report.findings if finding.severity in severities for row in finding.rows}


@st.composite
def values(draw):
    cliff = draw(st.sampled_from(CLIFFS)) * draw(st.sampled_from((1, -1)))
    odd = draw(st.sampled_from((None,) * 12 + (math.nan, math.inf, -math.inf, 1e5, 1e39)))
    return cliff + draw(st.sampled_from((0.0, 0.01, -0.01, 0.1, -0.1))) if odd is None else odd


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_a_verdict_is_what_pytorch_does(judged, dtype, data):
    count = data.draw(st.integers(1, 12))
    stored = torch.tensor([data.draw(values()) for _ in range(count)], dtype=torch.float64)
    y = torch.tensor([data.draw(st.sampled_from((0.0, 1.0, 0.3, 1.0, 0.0))) for _ in range(count)])
    reduction = data.draw(st.sampled_from(("mean", "sum")))
    scale = 1 / count if reduction == "mean" else 1.0
    report = judged(BCE, BceOptions(reduction=reduction), str(dtype)[6:], logits=stored, targets=y)
    x, y = stored.to(dtype), y.to(dtype)
    bad = {}
    for name, loss in (("naive", naive), ("fused", fused)):
        value, gradient = seen(x, y, loss, scale)
        # The true loss of a logit that is infinite is infinite where the label is the other one: that is right.
        legal = np.isinf(value) & np.isinf(
            x.numpy(force=True).astype(float) if dtype != torch.bfloat16 else x.double().numpy()
        )
        bad[name] = (~np.isfinite(value) & ~legal, ~np.isfinite(gradient))
        found = report.implementations[name]
        assert (found.bad_value_rows, found.bad_gradient_rows) == (bad[name][0].sum(), bad[name][1].sum())
    broken, breaks = rows(report, Severity.ERROR), rows(report, Severity.ERROR, Severity.WARNING)
    not_finite = {int(row) for row in np.flatnonzero(~np.isfinite(x.double().numpy()))}
    assert broken == {int(row) for row in np.flatnonzero(bad["fused"][0] | bad["fused"][1])} | not_finite
    assert breaks == {int(row) for row in np.flatnonzero(bad["naive"][0] | bad["naive"][1])} | broken


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(24,), (8, 3), (2, 3, 4)])
def test_a_printed_fix_does_what_is_said_of_it(judged, dtype, reduction, shape):
    generator = torch.Generator().manual_seed(3)
    logits = (torch.randn(24, generator=generator) * 40).reshape(shape).to(dtype)
    targets = (torch.rand(24, generator=generator) < 0.5).reshape(shape).to(dtype)
    report = judged(BCE, BceOptions(reduction=reduction), logits=logits, targets=targets)
    assert report.findings
    for finding in report.findings:
        at = torch.tensor(finding.rows)
        for remedy in finding.remedies:
            scope = {
                "torch": torch, "F": F, "targets": targets.reshape(-1)[at],
                "logits": logits.reshape(-1)[at].clone().requires_grad_(),
            }  # fmt: skip
            exec(remedy.snippet, scope)
            loss = scope["loss"]
            loss.backward()
            true = F.binary_cross_entropy_with_logits(
                logits.double().reshape(-1)[at], targets.double().reshape(-1)[at], reduction=reduction
            )
            right = bool(loss.isfinite()) and abs(loss.item() - true.item()) <= 0.01 * max(1.0, true.item())
            assert remedy.works == (right and bool(scope["logits"].grad.isfinite().all())), remedy


def test_the_arithmetic_names_what_went_bad_inside_the_formula(judged):
    report = judged(BCE, BceOptions(), logits=torch.tensor([3.0, 17.0]), targets=torch.tensor([1.0, 0.0]))
    (finding,) = [each for each in report.findings if each.code == "NH705"]
    assert finding.message == "value 1: logit 17, target 0: log(0) = -inf; the true loss is 17"
    assert [(remedy.title, remedy.works) for remedy in finding.remedies] == [
        ("call F.binary_cross_entropy_with_logits on the raw logits", True),
        ("F.binary_cross_entropy on sigmoid(logits)", False),  # 100, and no gradient
        ("log(s + 1e-8)", False),
        ("nan_to_num on the loss", False),
    ]


def test_confident_and_right_is_healthy(judged):
    logits = torch.tensor([-30.0, 15.0, 0.0, 2.0])
    assert not judged(BCE, BceOptions(), logits=logits, targets=torch.tensor([0.0, 1.0, 1.0, 0.0])).findings


def test_shapes_that_pytorch_refuses_are_refused(judged):
    with pytest.raises(NanhuntError, match=r"shape \(3, 1\) and targets of shape \(3,\) do not fit"):
        judged(BCE, BceOptions(), logits=torch.zeros(3, 1), targets=torch.zeros(3))


def test_a_missing_role_is_named_with_what_is_there(judged):
    with pytest.raises(NanhuntError, match="needs targets") as caught:
        judged(BCE, BceOptions(), logits=torch.zeros(3))
    assert "--role targets=" in caught.value.hint
