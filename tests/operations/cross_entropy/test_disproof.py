"""Code that is wrong in one way only: the judge of fixes names that way, and counts the rows it concerns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import nanhunt
from nanhunt.operations.fix import Fix
from nanhunt.operations.registry import OPERATIONS
from nanhunt.operations.rule import Rule
from nanhunt.operations.rules import RULES
from nanhunt.results.finding import RemedyResult, Severity

INF = math.inf
LOGITS = torch.tensor([[0.5, 1.0, 2.0], [3.0, -1.0, 0.0]])
LABELS = torch.tensor([0, 1])
SAME = "logits - logits.detach()"
"""Zeros with a gradient of one."""
FUSED = "loss = F.cross_entropy(logits, targets)\n"


def every_row(facts: Any) -> Any:
    return ~facts.nan_logit


RULE = Rule[Any, Any, Any](
    "NH998", "odd", Severity.WARNING, "A row.", "It is a row.", "None.",
    operation="cross-entropy", holds=every_row, arithmetic=lambda row: "a row",
)  # fmt: skip


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


def tried(
    patch: pytest.MonkeyPatch,
    fixes: tuple[Fix[Any], ...],
    *given: Any,
    rule: Rule[Any, Any, Any] = RULE,
    **options: Any,
) -> list[RemedyResult]:
    """What became of those fixes of a rule that holds for every row without NaN."""
    rule = replace(rule, fixes=fixes)
    known = {each.code: each for each in OPERATIONS["cross-entropy"].rules} | {rule.code: rule}
    patch.setitem(
        OPERATIONS, "cross-entropy", replace(OPERATIONS["cross-entropy"], rules=tuple(known.values()))
    )
    report = nanhunt.check(*given, **options)
    return [remedy for each in report.findings if each.code == rule.code for remedy in each.remedies]


def one(patch: pytest.MonkeyPatch, code: str, *given: Any, **options: Any) -> RemedyResult:
    (remedy,) = tried(patch, (Fix("odd", code),), *given, **options)
    return remedy


WRONG_LOSS = {
    "right": (FUSED, ""),
    "0.9 % more, with the right gradient": (FUSED + "loss = loss + 0.009 * loss.detach()", ""),
    "2 % more, with the right gradient": (FUSED + "loss = loss + 0.02 * loss.detach()", "loss finite but wrong"),
    "NaN": (FUSED + "loss = loss * torch.nan", "loss still NaN"),
    "infinite": (FUSED + "loss = loss * torch.inf", "loss still infinite"),
    "gradient 5 % more": (FUSED + "loss = loss + 0.05 * (loss - loss.detach())", "gradient wrong"),
    "gradient of one class": (FUSED + f"loss = loss + 0.05 * ({SAME})[:, 2].sum()", "gradient wrong"),
    "gradient NaN": (FUSED + f"loss = loss + 0 * ({SAME}).abs().sqrt().sum()", "gradient still NaN"),
    "gradient infinite": (FUSED + f"loss = loss + ({SAME}).sqrt().sum()", "gradient still infinite"),
    "no gradient": (FUSED + "loss = loss.detach() + 0 * logits.sum()", "gradient 0"),
    "another reduction": ('loss = F.cross_entropy(logits, targets, reduction="sum")', "loss finite but wrong"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_LOSS)
def test_a_loss_that_is_wrong_in_one_way(patch: pytest.MonkeyPatch, name: str) -> None:
    code, outcome = WRONG_LOSS[name]
    remedy = one(patch, code, LOGITS, LABELS)
    assert (remedy.outcome, remedy.works) == (outcome, not outcome)
    assert (remedy.rows, remedy.bad_rows_after) == (2, 2 if outcome else 0)


WRONG_OUTPUT = {
    "right": ("output = torch.softmax(logits, -1)", ""),
    "NaN": ("output = torch.softmax(logits, -1) * torch.nan", "softmax still NaN"),
    "2 % more": ("p = torch.softmax(logits, -1)\noutput = p + 0.02", "softmax finite but wrong"),
    "gradient half as much again": (
        "p = torch.softmax(logits, -1)\noutput = p + 0.5 * (p - p.detach())",
        "gradient wrong",
    ),
    "gradient NaN": (
        f"output = torch.softmax(logits, -1) + 0 * ({SAME}).abs().sqrt()",
        "gradient still NaN",
    ),
    "gradient infinite": (f"output = torch.softmax(logits, -1) + ({SAME}).sqrt()", "gradient still infinite"),
}


@pytest.mark.parametrize("name", WRONG_OUTPUT)
def test_a_softmax_that_is_wrong_in_one_way(patch: pytest.MonkeyPatch, name: str) -> None:
    code, outcome = WRONG_OUTPUT[name]
    remedy = one(patch, code, LOGITS[:, ::2].contiguous())
    assert (remedy.outcome, remedy.works) == (outcome, not outcome)


def test_errors_of_opposite_sign_do_not_hide_in_the_mean(patch: pytest.MonkeyPatch) -> None:
    code = (
        'rows = F.cross_entropy(logits, targets, reduction="none")\n'
        "loss = (rows + torch.tensor([0.5, -0.5])[: len(rows)]).mean()"
    )
    remedy = one(patch, code, LOGITS, LABELS)
    assert (remedy.works, remedy.outcome, remedy.bad_rows_after) == (False, "loss finite but wrong", 2)
    assert remedy.max_loss_error == pytest.approx(0.5)


def test_only_rows_that_failed_are_counted(patch: pytest.MonkeyPatch) -> None:
    """Of three rows the rule holds for the first two; the gradients of the last two are made wrong."""
    logits = torch.cat([LOGITS, torch.zeros(1, 3)])
    rule = replace(RULE, holds=lambda facts: ~facts.nan_logit & (np.arange(len(facts.nan_logit)) < 2))
    code = FUSED + f"loss = loss + ({SAME})[1:, 0].sum()"
    remedy = one(patch, code, logits, torch.tensor([0, 1, 2]), rule=rule)
    assert (remedy.rows, remedy.bad_rows_after, remedy.outcome) == (2, 1, "gradient wrong")


def test_no_finite_loss_is_right_where_the_truth_is_infinite(patch: pytest.MonkeyPatch) -> None:
    masked = replace(RULES["NH006"], fixes=())
    code = "loss = torch.nan_to_num(F.cross_entropy(logits, targets), posinf=0.0)"
    remedy = one(patch, code, torch.tensor([[-INF, 1.0], [0.0, 1.0]]), torch.tensor([0, 1]), rule=masked)
    assert (remedy.works, remedy.outcome) == (False, "loss finite but wrong")


def test_a_loss_may_be_off_by_the_roundings_of_its_own_format(patch: pytest.MonkeyPatch) -> None:
    code = FUSED + "loss = loss + 0.02 * loss.detach()"
    assert one(patch, code, LOGITS.bfloat16(), LABELS).works
    assert one(patch, code, LOGITS.half(), LABELS).outcome == "loss finite but wrong"


def test_an_error_within_rounding_counts_as_none_and_one_beyond_it_is_told(patch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(64, 9, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 9
    shifted = FUSED.replace("logits,", "logits.float() + 1e-7 * torch.arange(9),")
    assert one(patch, shifted, logits, labels).max_loss_error == 0.0
    scaled = Fix[Any]("odd", f"{FUSED}loss = 2.0**15 * (loss + 0.005)", scale=2.0**15)
    (remedy,) = tried(patch, (scaled,), logits, labels)
    assert remedy.works
    assert remedy.max_loss_error == pytest.approx(0.005, rel=1e-3)


def test_a_mean_over_more_rows_than_float16_counts(patch: pytest.MonkeyPatch) -> None:
    logits = np.zeros((70_000, 3), np.float16)
    logits[:, 1] = 8.0  # losses so small that their sum is no trouble
    logits[5] = 100.0, 0.0, 0.0
    rule = replace(RULE, holds=lambda facts: facts.exp_inf)
    wide = Fix[Any]("wide", "loss = F.cross_entropy(logits.float(), targets)")
    told = tried(patch, (Fix("odd", FUSED), wide), logits, np.ones(70_000, int), rule=rule)
    assert [(each.title, each.works, each.outcome) for each in told] == [
        ("wide", True, ""),
        ("odd", False, "loss wrong over all rows"),
    ]


def test_what_only_looks_like_a_fix_is_not_told_where_it_seems_to_work(patch: pytest.MonkeyPatch) -> None:
    fixes = (Fix[Any]("harmless here", FUSED, tempting=True), Fix[Any]("odd", FUSED + "loss = 2 * loss"))
    assert [each.title for each in tried(patch, fixes, LOGITS, LABELS)] == ["odd"]


def test_those_that_work_come_first_and_only_they_say_what_they_change(patch: pytest.MonkeyPatch) -> None:
    bad, good = FUSED + "loss = 2 * loss", FUSED
    fixes = (Fix[Any]("bad", bad, changes="twice"), Fix[Any]("good", good, changes="nothing much"))
    told = [(each.title, each.changes) for each in tried(patch, fixes, LOGITS, LABELS)]
    assert told == [("good", "nothing much"), ("bad", "")]


def test_rows_whose_input_is_at_fault_are_not_run(patch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[1000.0, 0.0], [1000.0, -INF], [INF, 0.0]])
    rule = replace(RULE, holds=lambda facts: facts.exp_inf)
    remedy = one(patch, FUSED, logits, torch.tensor([1, 1, 1]), rule=rule)
    assert (remedy.works, remedy.rows) == (True, 1)


def test_a_rule_about_the_input_says_itself_which_rows_a_fix_can_mend(patch: pytest.MonkeyPatch) -> None:
    """The label's mask can be mended, an infinite logit beside it cannot."""
    logits, labels = torch.tensor([[INF, -INF], [0.0, -INF], [0.0, 1.0]]), torch.tensor([1, 1, 0])
    told = tried(patch, RULES["NH006"].fixes, logits, labels, rule=RULES["NH006"])
    assert [(each.title, each.works, each.rows) for each in told] == [
        ("ignore rows whose label is masked", True, 1),
        ("call F.cross_entropy on the raw logits", False, 1),
    ]
