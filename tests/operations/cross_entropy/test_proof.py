"""What a proof must not overlook: the user's own mean, rows beside the failing ones, labels in any shape."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import nanhunt
from nanhunt.cli.explain import explain_rules
from nanhunt.operations.cross_entropy import batch
from nanhunt.operations.fix import Fix
from nanhunt.operations.registry import OPERATIONS
from nanhunt.operations.rule import Rule
from nanhunt.operations.rules import RULES
from nanhunt.results.finding import RemedyResult, Severity

INF = math.inf
ODD = Rule[Any, Any, Any](
    "NH998", "row-of-sevens", Severity.WARNING, "Every logit is 7.", "Somebody wrote sevens.", "Write eights.",
    operation="cross-entropy",
    holds=lambda facts: ~facts.nan_logit & ~facts.low_headroom,
    arithmetic=lambda row: f"all {len(row.x)} logits are {float(row.x[0]):g}",
    fixes=(
        Fix("subtract 7", "logits = logits - 7\nloss = F.cross_entropy({logits}, {targets}{terms}{reduction})"),
        Fix("double them", "loss = 2 * F.cross_entropy({logits}, {targets}{terms}{reduction})"),
    ),
)  # fmt: skip


def put(monkeypatch: pytest.MonkeyPatch, rule: Rule[Any, Any, Any]) -> None:
    """Cross entropy with that rule, in place of the one of its code if there is one."""
    known = {each.code: each for each in OPERATIONS["cross-entropy"].rules} | {rule.code: rule}
    changed = replace(OPERATIONS["cross-entropy"], rules=tuple(known.values()))
    monkeypatch.setitem(OPERATIONS, "cross-entropy", changed)


def fixes(code: str, *given: Any, **options: Any) -> dict[str, RemedyResult]:
    """By title, what was tried for that rule."""
    report = nanhunt.check(*given, **options)
    found = next(finding for finding in report.findings if finding.code == code)
    return {remedy.title: remedy for remedy in found.remedies}


def test_a_rule_added_to_its_operation_is_judged_proven_reported_and_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(monkeypatch, ODD)
    report = nanhunt.check(torch.full((2, 3), 7.0), torch.tensor([0, 1]), select=ODD.code)
    (finding,) = json.loads(report.to_json())["tensors"][0]["findings"]
    assert (finding["code"], finding["name"], finding["severity"]) == (ODD.code, ODD.name, "warning")
    assert finding["message"] == "row 0: all 3 logits are 7"
    told = [(fix["title"], fix["works"], fix["outcome"]) for fix in finding["remedies"]]
    assert told == [("subtract 7", True, ""), ("double them", False, "loss finite but wrong")]
    explain_rules("row-of-sevens", every=False)
    assert "Somebody wrote sevens." in capsys.readouterr().out


def test_the_mean_divides_by_the_users_rows_also_where_few_are_run() -> None:
    # p / N = 1e-4 / 4096 is below half the smallest float16, p / 211 would not be.
    tried = fixes("NH302", np.zeros((4096, 10_000), np.float16), np.zeros(4096, int))
    assert next(iter(tried.values())).rows < 4096
    assert not tried["compute the loss in float32"].works
    assert tried["compute the loss in float32"].outcome == "trains no better"


def test_a_scaled_loss_is_wrong_from_as_many_roundings_on_as_one_that_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # float16 rounds the label's probability of 0.9996 by 3e-4, which 2**15 makes a loss of 10: that is not wrong.
    monkeypatch.setattr(batch, "WHOLE_VALUES", 0)
    logits = np.zeros((15_000, 3), np.float16)
    logits[:4, 0] = 8.5
    scaled = fixes("NH302", logits, np.zeros(15_000, int), "float16")
    scaled_loss = next(remedy for title, remedy in scaled.items() if title.startswith("scale the loss"))
    assert (scaled_loss.works, scaled_loss.outcome, scaled_loss.rows) == (True, "", 4)


def test_a_sum_that_overflows_only_over_all_rows_is_not_forgotten() -> None:
    logits = np.zeros((100_000, 3), np.float16)
    logits[5] = 100.0, 0.0, 0.0
    fused = fixes("NH101", logits, np.ones(100_000, int), reduction="sum")
    call = fused["call F.cross_entropy on the raw logits"]
    assert (call.works, call.outcome) == (False, "loss wrong over all rows")
    assert fixes("NH010", logits, np.ones(100_000, int), reduction="sum")["compute the loss in float32"].works


def test_rows_with_graver_faults_do_not_disprove_a_fix() -> None:
    logits = torch.tensor([[1000.0, 0.0], [math.nan, 0.0], [-INF, 1.0], [0.0, 1.0]])
    tried = fixes("NH101", logits, torch.tensor([1, 0, 0, 5]))
    assert tried["call F.cross_entropy on the raw logits"].works
    assert tried["call F.cross_entropy on the raw logits"].rows == 1


def test_a_fix_that_breaks_other_rows_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "loss = F.cross_entropy(logits.masked_fill(logits.abs() < 1, torch.nan), targets)"
    put(monkeypatch, replace(RULES["NH104"], fixes=(Fix("odd", text),)))
    tried = fixes("NH104", torch.tensor([[-103.0, -103.5], [0.5, 0.25]]), torch.tensor([1, 0]))
    assert (tried["odd"].works, tried["odd"].outcome) == (False, "loss still NaN")


def test_a_fix_that_raises_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (Fix("odd", "loss = allowed"),)
    put(monkeypatch, replace(RULES["NH104"], fixes=broken))
    tried = fixes("NH104", torch.tensor([[-103.0, -103.5]]), torch.tensor([1]))
    assert tried["odd"].outcome == "raises NameError: name 'allowed' is not defined"
    assert (tried["odd"].works, tried["odd"].bad_rows_after) == (False, 1)


def test_a_softmax_that_is_wrong_is_no_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = (Fix("odd", "output = torch.softmax({here}, {axis}) + 0.1 * (torch.rand(()) * 0 + 1)"),)
    put(monkeypatch, replace(RULES["NH101"], fixes=odd))
    assert fixes("NH101", torch.tensor([[1000.0, 0.0]]))["odd"].outcome == "softmax finite but wrong"


SHAPES = {
    "flat": ((2, 5, 3), 1, (6,)),
    "class dimension of 1": ((4, 5), -1, (4, 1)),
    "images with a dimension of 1": ((2, 5, 3, 2), 1, (2, 1, 3, 2)),
    "text, flat": ((2, 3, 5), -1, (6,)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("whole", [1 << 17, 0])
def test_code_takes_the_labels_in_the_shape_that_the_user_has(
    name: str, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "WHOLE_VALUES", whole)
    shape, axis, labels = SHAPES[name]
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    logits.view(-1)[0] = 1000.0
    targets = torch.arange(math.prod(labels)).reshape(labels) % 5
    working = [fix for fix in fixes("NH101", logits, targets, class_axis=axis).values() if fix.works]
    assert working
    rows = logits.movedim(axis, -1).reshape(-1, 5)
    for fix in working:
        scope: dict[str, Any] = {"torch": torch, "F": F, "logits": logits, "targets": targets}
        exec(fix.snippet, scope)
        assert scope["loss"].item() == pytest.approx(
            F.cross_entropy(rows, targets.flatten()).item(), rel=1e-5
        )


def test_shifted_labels_are_shifted_in_the_code_too() -> None:
    logits = torch.zeros(2, 4, 5)
    logits[0, 1, 2] = 1000.0
    labels = torch.arange(8).reshape(2, 4) % 5
    for whole in (batch.WHOLE_VALUES, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch, "WHOLE_VALUES", whole)
            fix = fixes("NH101", logits, labels, shift=True)["call F.cross_entropy on the raw logits"]
        assert fix.works
        scope: dict[str, Any] = {"torch": torch, "F": F, "logits": logits, "targets": labels}
        exec(fix.snippet, scope)
        right = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        assert scope["loss"].item() == pytest.approx(right.item(), rel=1e-5)


def test_an_ignored_row_has_nothing_to_learn() -> None:
    """float16 sums 70,000 classes to inf in both rows, and a fix mends both, though one is left out of the loss."""
    tried = fixes("NH010", np.zeros((2, 70_000), np.float16), np.array([0, -100]))
    remedy = tried["compute the loss in float32"]
    assert (remedy.works, remedy.rows) == (True, 2)


def test_a_row_that_stands_in_is_sound_in_float16_also_among_many_classes() -> None:
    """70,000 equal logits would add up to inf there."""
    logits = np.full((2, 70_000), -9.0, np.float16)
    logits[0, :2] = 12.0, 0.0
    logits[1, 0] = math.nan
    assert fixes("NH101", logits, np.array([1, 1]))["call F.cross_entropy on the raw logits"].works


def test_a_row_that_stands_in_counts() -> None:
    """The user's mean divides by the weight of row 1, which is replaced: its label may not have weight 0."""
    logits = torch.tensor([[100.0, 0.0, 0.0], [math.nan, 0.0, 0.0]])
    tried = fixes("NH101", logits, torch.tensor([0, 1]), class_weights=torch.tensor([0.0, 1.0, 1.0]))
    assert tried["call F.cross_entropy on the raw logits"].works
