"""--op bce against plain PyTorch, on both sides of every cliff; its fixes run from their printed text."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import nanhunt
from nanhunt.errors import NanhuntError
from nanhunt.operations.bce.operation import BCE
from nanhunt.operations.bce.options import BceOptions
from nanhunt.results.finding import Severity

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


@pytest.mark.parametrize(
    ("dtype", "below", "above"),
    [("float32", 16.6, 16.64), ("bfloat16", 6.1875, 6.25), ("float16", 8.3125, 8.3203125)],
)
def test_one_minus_sigmoid_is_zero_from_here_up(judged, dtype, below, above):
    x = torch.tensor([below, above], dtype=torch.float64)
    report = judged(BCE, BceOptions(), dtype, logits=x, targets=torch.zeros(2))
    (finding,) = [each for each in report.findings if each.code == "NH705"]
    assert finding.rows == (1,)


def focal(x, y, gamma, weight):
    s = torch.sigmoid(x)
    return -(weight * y * (1 - s) ** gamma * s.log() + (1 - y) * s**gamma * (1 - s).log())


def modulated(x, y, gamma):
    s = torch.sigmoid(x)
    return (
        F.binary_cross_entropy_with_logits(x, y, reduction="none")
        * (1 - (y * s + (1 - y) * (1 - s))) ** gamma
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_focal_loss_is_what_pytorch_does(judged, dtype, data):
    count = data.draw(st.integers(1, 8))
    x = torch.tensor(
        [data.draw(st.sampled_from(CLIFFS)) * data.draw(st.sampled_from((1, -1))) for _ in range(count)]
    ).to(dtype)
    y = torch.tensor([data.draw(st.sampled_from((0.0, 1.0))) for _ in range(count)]).to(dtype)
    gamma, weight = data.draw(st.sampled_from((0.5, 2.0))), data.draw(st.sampled_from((1.0, 3.0)))
    report = judged(BCE, BceOptions(gamma=gamma, pos_weight=weight, reduction="sum"), logits=x, targets=y)
    for name, loss in (
        ("naive", lambda x, y: focal(x, y, gamma, weight)),
        ("modulated", lambda x, y: modulated(x, y, gamma)),
    ):
        value, gradient = seen(x, y, loss, 1.0)
        found = report.implementations[name]
        assert found.bad_value_rows == np.count_nonzero(~np.isfinite(value))
        assert found.bad_gradient_rows == np.count_nonzero(~np.isfinite(gradient))
    assert (
        report.implementations["fused"].bad_value_rows
        == report.implementations["fused"].bad_gradient_rows
        == 0
    )


def test_the_root_of_one_minus_p_has_no_gradient_where_p_is_one(judged):
    report = judged(BCE, BceOptions(gamma=0.5), logits=torch.tensor([40.0]), targets=torch.tensor([1.0]))
    assert report.implementations["modulated"].bad_value_rows == 0
    assert report.implementations["modulated"].bad_gradient_rows == 1
    (finding,) = report.findings
    fixed, tempting = finding.remedies[:2]
    assert (fixed.title, fixed.works) == ("raise the probability with exp(gamma * F.logsigmoid)", True)
    assert tempting.outcome == "right loss, gradient still NaN"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_preference_is_its_margin(judged, dtype):
    margins = torch.tensor([0.0, 5.0, 160.0, -8.0, -87.0, -90.0, -110.0], dtype=torch.float64)
    zero = torch.zeros_like(margins)
    t = {"chosen": margins.to(dtype), "rejected": zero.to(dtype)}
    with_reference = {**t, "ref_chosen": zero.to(dtype), "ref_rejected": zero.to(dtype)}
    for tensors in (t, with_reference):
        report = judged(BCE, BceOptions(beta=1.0, reduction="sum"), **tensors)
        value, _ = seen(margins.to(dtype), zero, lambda x, _: -torch.sigmoid(x).log(), 1.0)
        assert report.implementations["naive"].bad_value_rows == np.count_nonzero(~np.isfinite(value))
        assert report.implementations["fused"].bad_value_rows == 0
        for finding in report.findings:
            for remedy in finding.remedies:
                assert remedy.works == remedy.title.startswith(("call F.logsigmoid", "compute the loss")), (
                    remedy
                )


def test_a_preference_is_known_by_its_names():
    t = torch.tensor([-3.0, -2000.0])
    names = ("chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps")
    (tensor,) = nanhunt.check(dict(zip(names, (t, t * 0, t * 0, t * 0), strict=True)), beta=0.1).tensors
    assert tensor.operation == "bce"
    assert "margin -200 (beta 0.1; chosen -2000, rejected -0" in tensor.findings[0].message
    with pytest.raises(NanhuntError, match="a preference has two sides"):
        nanhunt.check({"chosen_logps": t}, op="bce")


def test_the_gradient_of_clamped_probabilities_fades_long_before_the_loss_is_wrong(judged):
    logits, targets = torch.tensor([-27.0, -30.0, -40.0, -80.0]), torch.ones(4)
    leaf = logits.clone().requires_grad_()
    F.binary_cross_entropy(torch.sigmoid(leaf), targets, reduction="sum").backward()
    assert leaf.grad[0] == -1 and (leaf.grad[1:] > -0.1).all()
    report = judged(BCE, BceOptions(reduction="sum"), logits=logits, targets=targets)
    (finding,) = report.findings
    assert (finding.name, finding.rows) == ("clamped-bce", (1, 2, 3))
    assert "gives 30 with a gradient of -0.0935762, the truth is 30 with -1" in finding.message


def test_a_mean_over_many_rounds_every_gradient_to_0() -> None:
    """Neither the loss nor one value alone shows it: 0.0025 / 100,000 is below half the smallest float16."""
    logits, targets = torch.full((100_000,), -6.0, dtype=torch.float16), torch.zeros(100_000)
    leaf = logits.clone().requires_grad_()
    F.binary_cross_entropy_with_logits(leaf, targets.half()).backward()
    assert leaf.grad is not None
    assert not leaf.grad.any()
    counts = {
        reduction: {
            finding.code: finding.count
            for finding in nanhunt.check(
                {"logits": logits, "targets": targets}, op="bce", reduction=reduction, select="NH709"
            ).findings
        }
        for reduction in ("mean", "sum")
    }
    assert counts == {"mean": {"NH709": 100_000}, "sum": {}}


def test_a_truth_that_is_infinite_is_no_error_to_measure() -> None:
    """F.binary_cross_entropy stops at 100 where the loss is infinite: no number says how far that is off."""
    logits, targets = torch.tensor([torch.inf, 1.0]), torch.zeros(2)
    assert F.binary_cross_entropy(logits.sigmoid(), targets, reduction="none")[0] == 100
    (tensor,) = nanhunt.compare(logits, targets, op="bce").tensors
    assert tensor.implementations["fused"].loss == math.inf
    assert 0 < tensor.implementations["bce-of-sigmoid"].max_error < 1e-6


def test_the_few_logits_above_the_bound_are_proven_one_by_one(judged):
    """Up to 5.3 every logit beside the target 0 is right; above it depends on how the sum 1 + exp(-x) is rounded."""
    logits = np.linspace(5.3, 7.0, 2001).astype(np.float32)
    zero = np.zeros(1, np.float32)
    options = BceOptions()
    proven = np.array([BCE.screen({"logits": x[None], "targets": zero}, options) for x in logits])
    report = judged(BCE, options, logits=torch.from_numpy(logits), targets=torch.zeros(len(logits)))
    assert {finding.name for finding in report.findings} == {"clamped-bce", "bce-cancellation"}
    wrong = np.isin(np.arange(len(logits)), [row for finding in report.findings for row in finding.rows])
    assert 100 < wrong.sum() < 1000  # a finding keeps the numbers of 1,000
    assert not (proven & wrong).any()
    assert (proven | wrong).mean() > 0.95
    assert proven[logits < 5.6].mean() > 0.95
    whole = {"logits": logits[proven], "targets": np.zeros(proven.sum(), np.float32)}
    assert BCE.screen(whole, options)
    assert not BCE.screen({"logits": logits[proven].astype(float), "targets": whole["targets"]}, options)
