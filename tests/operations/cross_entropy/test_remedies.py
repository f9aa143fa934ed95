"""Every fix that is printed as working is run again here, by other code; what only looks like one fails."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import nanhunt
from nanhunt.operations.rules import RULES
from nanhunt.results.finding import RemedyResult

NAN, INF = math.nan, math.inf
BATCHES: dict[str, tuple[Any, Any, str, dict[str, Any]]] = {
    "NH001": ([[NAN, 1.0, 2.0]], [0], "float32", {}),
    "NH002": ([[INF, 1.0, 2.0]], [0], "float32", {}),
    "NH003": ([[-INF, -INF, -INF], [0.0, 1.0, 2.0]], [0, 1], "float32", {}),
    "NH004": ([[70000.0, 1.0, 0.0]], [0], "float16", {}),
    "NH005": ([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], [3, 0], "float32", {}),
    "NH006": ([[-INF, 2.0, 3.0], [1.0, 2.0, 3.0]], [0, 1], "float32", {}),
    "NH007": ([[1.0, 2.0, 3.0]], [-100], "float32", {}),
    "NH008": ([[NAN, NAN, NAN], [1.0, 2.0, 3.0]], [-100, 0], "float32", {}),
    "NH009": ([[2.0, 1.0, -INF]], [0], "float32", {"label_smoothing": 0.1}),
    "NH010": (np.zeros((1, 65_520)), [0], "float16", {}),
    "NH011": ([[60_000.0, -60_000.0, 0.0]], [1], "float16", {}),
    "NH012": ([[-1e30, -1e30], [1.0, 2.0]], [0, 1], "float32", {}),
    "NH101": ([[1000.0, 1.0, -1000.0]], [1], "float32", {}),
    "NH102": ([[88.5, 88.5, 88.5]], [0], "float32", {}),
    "NH103": ([[-1000.0, -1001.0, -1002.0]], [0], "float32", {}),
    "NH104": ([[-103.0, -103.5]], [1], "float32", {}),
    "NH201": ([[0.0, -104.0]], [1], "float32", {}),
    "NH202": ([[20.0, 0.0]], [0], "float32", {}),
    "NH203": ([[1e8, 1e8 - 8]], [0], "float32", {}),
    "NH301": ([[0.0, -95.0]], [1], "float32", {}),
    "NH302": (np.zeros((4096, 10_000)), [0] * 4096, "float16", {}),
    "NH401": ([[85.0, 84.0]], [0], "float32", {}),
    "NH402": ([[0.0, 0.0], [1.0, 2.0]], [0, 1], "float32", {}),
}
DATA_ONLY = {"NH001", "NH002", "NH402"}
"""Nothing after the logits can repair these."""


@functools.cache
def remedies(code: str) -> tuple[RemedyResult, ...]:
    """What was tried for that rule on its batch."""
    logits, labels, dtype, options = BATCHES[code]
    report = nanhunt.check(np.array(logits, np.float32), np.array(labels), dtype, **options)
    return next(finding.remedies for finding in report.findings if finding.code == code)


def test_there_is_a_batch_for_every_rule_about_logits() -> None:
    assert set(BATCHES) == {code for code, rule in RULES.items() if rule.operation == "cross-entropy"}


@pytest.mark.parametrize("code", sorted(BATCHES))
def test_something_works_unless_only_the_data_can_be_fixed(code: str) -> None:
    tried = remedies(code)
    working = [remedy for remedy in tried if remedy.works]
    assert bool(working) == (code not in DATA_ONLY), [remedy.title for remedy in tried]
    assert all(remedy.bad_rows_after == 0 and remedy.rows >= 1 for remedy in working)
    assert all(remedy.bad_rows_after > 0 for remedy in tried if not remedy.works)
    assert [remedy.works for remedy in tried] == sorted((remedy.works for remedy in tried), reverse=True)
    assert all(remedy.snippet for remedy in tried)


TEMPTING = ("gradient clipping", "clamping the logits", "log(p + 1e-8)", "nan_to_num on the loss")


@pytest.mark.parametrize("code", ["NH101", "NH201", "NH103", "NH301"])
def test_tempting_ones_are_shown_to_fail(code: str) -> None:
    results = {remedy.title: remedy.works for remedy in remedies(code)}
    assert {title: results[title] for title in TEMPTING if title in results} == dict.fromkeys(
        (title for title in TEMPTING if title in results), False
    )
    assert "gradient clipping" in results


@pytest.mark.parametrize("code", sorted(set(BATCHES) - DATA_ONLY))
def test_the_snippet_itself_runs_and_ends_finite(code: str) -> None:
    """Pasted as printed, on the batch as cast (or as stored, where the title says so), forward and backward."""
    logits, labels, dtype, _ = BATCHES[code]
    for remedy in remedies(code):
        if not remedy.works:
            continue
        stored = torch.tensor(logits, dtype=torch.float32)
        leaf = stored if "do not cast" in remedy.title else stored.to(getattr(torch, dtype))
        leaf = leaf.clone().requires_grad_()
        scope: dict[str, Any] = {"torch": torch, "F": F, "logits": leaf, "targets": torch.tensor(labels)}
        exec(remedy.snippet, scope)
        scope["loss"].backward()
        assert bool(torch.isfinite(scope["loss"])), remedy.title
        assert leaf.grad is not None
        assert bool(leaf.grad.isfinite().all()), remedy.title


LAYOUTS = {
    "one row": ((5,), -1),
    "rows last": ((5, 6), 0),
    "text": ((3, 4, 5), -1),
    "images": ((2, 5, 3, 4), 1),
}


def trouble(shape: tuple[int, ...], axis: int, *, probabilities: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of that layout of which one row overflows, and targets; where there are more, one has a bad label."""
    torch.manual_seed(0)
    logits = torch.randn(shape)
    rows = logits.movedim(axis, -1).reshape(-1, shape[axis]) if len(shape) > 1 else logits[None]
    rows[0] = torch.tensor([100.0, 1.0, 2.0, 3.0, -100.0])
    leading = list(shape)
    del leading[axis]
    logits = rows.reshape(*leading, shape[axis]).movedim(-1, axis).contiguous()
    if probabilities:
        return logits, torch.softmax(torch.randn(shape), axis)
    targets = torch.randint(0, shape[axis], leading)
    if targets.numel() > 1:
        targets.view(-1)[1] = shape[axis] + 1
    return logits, targets


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_snippet_fits_the_users_layout(layout: str, probabilities: bool) -> None:
    shape, axis = LAYOUTS[layout]
    logits, targets = trouble(shape, axis, probabilities=probabilities)
    report = nanhunt.check(logits, targets, class_axis=axis)
    tried = [remedy for finding in report.findings for remedy in finding.remedies]
    working = [remedy for remedy in tried if remedy.works and "cross_entropy(" in remedy.snippet]
    assert working
    good = (
        targets
        if probabilities or targets.numel() == 1
        else targets.masked_fill(targets >= shape[axis], -100)
    )
    per_image = (
        F.cross_entropy(logits.movedim(axis, 1), good.movedim(axis, 1) if probabilities else good)
        if len(shape) > 2
        else F.cross_entropy(logits.movedim(axis, -1), good.movedim(axis, -1) if probabilities else good)
    )
    for remedy in working:
        mends = "masked_fill(bad" in remedy.snippet
        scope: dict[str, Any] = {
            "torch": torch,
            "F": F,
            "logits": logits,
            "targets": targets if mends else good,
        }
        exec(remedy.snippet, scope)
        assert scope["loss"].item() == pytest.approx(per_image.item(), rel=1e-5), remedy.snippet


OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "smoothing": ({"label_smoothing": 0.1}, {"label_smoothing": 0.1}),
    "sum": ({"reduction": "sum"}, {"reduction": "sum"}),
    "ignored": ({"ignore_index": 2}, {"ignore_index": 2}),
    "temperature": ({"temperature": 2.0}, {}),
    "weights": ({"class_weights": [1.0, 2.0, 3.0, 4.0, 5.0]}, {"weight": torch.arange(1.0, 6.0)}),
}


def test_weights_that_add_up_to_0_are_divided_by_in_code_that_runs() -> None:
    logits, targets, weight = (
        torch.zeros(2, 3),
        torch.zeros(2, dtype=torch.long),
        torch.tensor([0.0, 1.0, 1.0]),
    )
    report = nanhunt.check(logits, targets, class_weights=weight)
    tried = [remedy for finding in report.findings for remedy in finding.remedies if remedy.works]
    assert any("torch.where(total" in remedy.snippet for remedy in tried)
    for remedy in tried:
        scope: dict[str, Any] = {
            "torch": torch,
            "F": F,
            "logits": logits,
            "targets": targets,
            "weight": weight,
        }
        exec(remedy.snippet, scope)
        assert scope["loss"].item() == 0


@pytest.mark.parametrize("name", OPTIONS)
def test_the_snippet_repeats_the_options_of_the_loss(name: str) -> None:
    options, theirs = OPTIONS[name]
    logits = torch.cat([torch.tensor([[300.0, 1.0, 2.0, 3.0, -300.0]]), torch.randn(7, 5)])
    targets = torch.arange(8) % 5
    report = nanhunt.check(logits, targets, **options)
    tried = [remedy for finding in report.findings for remedy in finding.remedies]
    working = [remedy for remedy in tried if remedy.works and "cross_entropy(" in remedy.snippet]
    assert working
    expected = F.cross_entropy(logits / options.get("temperature", 1.0), targets, **theirs)
    for remedy in working:
        scope: dict[str, Any] = {
            "torch": torch, "F": F, "logits": logits, "targets": targets, "weight": theirs.get("weight"),
        }  # fmt: skip
        exec(remedy.snippet, scope)
        assert scope["loss"].item() == pytest.approx(expected.item(), rel=1e-5), remedy.snippet


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_targets_the_snippet_is_a_softmax_in_the_users_layout(layout: str) -> None:
    shape, axis = LAYOUTS[layout]
    logits, _ = trouble(shape, axis, probabilities=False)
    report = nanhunt.check(logits, class_axis=axis)
    working = [remedy for finding in report.findings for remedy in finding.remedies if remedy.works]
    assert working
    for remedy in working:
        scope: dict[str, Any] = {"torch": torch, "F": F, "logits": logits}
        exec(remedy.snippet, scope)
        how = torch.log_softmax if "log_softmax" in remedy.title else torch.softmax
        assert torch.allclose(scope["output"], how(logits, axis))
        assert "targets" not in remedy.snippet


def test_a_fix_is_measured_against_the_truth() -> None:
    fix = remedies("NH101")[0]
    exact = F.cross_entropy(torch.tensor([[1000.0, 1.0, -1000.0]]).double(), torch.tensor([1]))
    measured = F.cross_entropy(torch.tensor([[1000.0, 1.0, -1000.0]]), torch.tensor([1]))
    assert fix.max_loss_error == pytest.approx(abs(float(measured) - float(exact)), abs=1e-12)


def test_at_most_a_thousand_rows_are_tried() -> None:
    report = nanhunt.check(np.full((1500, 2), 1000.0, np.float32), np.zeros(1500, np.int64))
    assert report.findings[0].count == 1500
    assert {remedy.rows for remedy in report.findings[0].remedies} == {1000}
