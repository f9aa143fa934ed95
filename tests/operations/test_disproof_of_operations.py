"""Code that is wrong in one way only, for operations that any judge runs: it is named, and the units are counted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import nanhunt
from nanhunt.operations.fix import Fix
from nanhunt.operations.operation import Operation
from nanhunt.operations.registry import OPERATIONS
from nanhunt.operations.rule import Rule
from nanhunt.results.finding import RemedyResult, Severity

INF, NAN = math.inf, math.nan
SAME = "logits - logits.detach()"
"""Zeros with a gradient of one."""


def rule(op: str, holds: Any = None) -> Rule[Any, Any, Any]:
    """One that holds for every unit, or for those that ``holds`` says of how many there are."""
    chosen = holds or (lambda count: np.ones(count, bool))
    return Rule(
        "NH998", "odd", Severity.WARNING, "A unit.", "It is a unit.", "None.", operation=op,
        holds=lambda f: chosen(len(f.own["not_finite"])), arithmetic=lambda unit: "a unit",
    )  # fmt: skip


def tried(
    patch: pytest.MonkeyPatch, odd: Rule[Any, Any, Any], given: Any, *fixes: Fix[Any], **options: Any
) -> list[RemedyResult]:
    """What became of the fixes of that rule."""
    operation = OPERATIONS[odd.operation]
    assert isinstance(operation, Operation)
    others = (each for each in operation.rules if each.code != odd.code)
    rules = (*others, replace(odd, fixes=fixes))
    patch.setitem(OPERATIONS, odd.operation, replace(operation, rules=rules, screen=None))
    report = nanhunt.check(given, op=odd.operation, **options)
    return [remedy for each in report.findings if each.code == odd.code for remedy in each.remedies]


def binary(*logits: float) -> dict[str, torch.Tensor]:
    return {"logits": torch.tensor(logits), "targets": torch.ones(len(logits))}


FUSED = "loss = F.binary_cross_entropy_with_logits(logits, targets)\n"
WRONG_LOSS = {
    "right": (FUSED, "", 0),
    "0.9 % more": (FUSED + "loss = loss + 0.009 * loss.detach()", "", 0),
    "2 % more, and at least 0.01": (FUSED + "loss = loss * 1.02", "loss finite but wrong", 3),
    "NaN": (FUSED + "loss = loss * torch.nan", "loss still NaN", 3),
    "infinite": (FUSED + "loss = loss * torch.inf", "loss still infinite", 3),
    "a sum": (FUSED.replace("targets)", 'targets, reduction="sum")'), "loss finite but wrong", 3),
    "gradient NaN": (FUSED + f"loss = loss + 0 * ({SAME})[:2].abs().sqrt().sum()", "right loss, gradient still NaN", 2),
    "gradient infinite": (FUSED + f"loss = loss + ({SAME})[1:].sqrt().sum()", "right loss, gradient still infinite", 2),
    "no gradient": (FUSED + "loss = 0 * loss", "loss finite but wrong, gradient 0", 3),
    "raises": ("loss = allowed", "raises NameError: name 'allowed' is not defined", 3),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_LOSS)
def test_a_loss_that_is_wrong_in_one_way(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    code, outcome, bad = WRONG_LOSS[name]
    (remedy,) = tried(monkeypatch, rule("bce"), binary(-1.0, 2.0, -3.0), Fix("odd", code))
    assert (remedy.outcome, remedy.works) == (outcome, not outcome)
    assert (remedy.rows, remedy.bad_rows_after) == (3, bad)


ENTROPY = "output = torch.distributions.Categorical(logits=logits, validate_args=False).entropy()\n"
WRONG_OUTPUT = {
    "right": (ENTROPY, "", 0),
    "NaN": (ENTROPY + "output = output * torch.tensor([1, torch.nan])", "still NaN", 1),
    "infinite": (ENTROPY + "output = output * torch.tensor([1, torch.inf])", "still infinite", 1),
    "1 % more": (ENTROPY + "output = output + torch.tensor([0.01, 0])", "finite but wrong", 1),
    "gradient NaN": (
        ENTROPY + f"output = output + 0 * ({SAME})[:, 0].abs().sqrt()", "right value, gradient still NaN", 2
    ),
    "gradient NaN of a wrong value": (
        ENTROPY + f"output = output + 1 + 0 * ({SAME})[:, 0].abs().sqrt()",
        "finite but wrong, gradient still NaN", 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_OUTPUT)
def test_an_output_that_is_wrong_in_one_way(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    code, outcome, bad = WRONG_OUTPUT[name]
    logits = torch.tensor([[0.5, 1.0, 2.0], [3.0, -1.0, 0.0]])
    (remedy,) = tried(monkeypatch, rule("entropy"), {"logits": logits}, Fix("odd", code))
    assert (remedy.outcome, remedy.works, remedy.bad_rows_after) == (outcome, not outcome, bad)


def test_units_whose_input_is_at_fault_are_not_run_unless_the_rule_is_about_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = binary(-1.0, NAN, INF, 2.0)
    (remedy,) = tried(monkeypatch, rule("bce"), given, Fix("odd", FUSED))
    assert (remedy.works, remedy.rows) == (True, 2)
    about = replace(rule("bce"), input_at_fault=True)
    (remedy,) = tried(monkeypatch, about, given, Fix("odd", FUSED))
    assert (remedy.works, remedy.rows, remedy.outcome) == (False, 4, "loss still NaN")


def test_what_only_looks_like_a_fix_is_told_where_it_does_not_help_and_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixes = (
        Fix[Any]("no help", FUSED + "loss = 2 * loss", tempting=True),
        Fix[Any]("seems to help", FUSED, tempting=True), Fix[Any]("good", FUSED),
    )  # fmt: skip
    told = tried(monkeypatch, rule("bce"), binary(-1.0, 2.0), *fixes)
    assert [each.title for each in told] == ["good", "no help"]


def test_a_fix_that_redefines_the_loss_need_only_be_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Fix[Any]("other", FUSED + "loss = 2 * loss", changes="twice", redefines=True)
    endless = replace(other, title="endless", code=FUSED + "loss = loss + torch.inf")
    told = tried(monkeypatch, rule("bce"), binary(-1.0, 2.0), endless, other)
    assert [(each.title, each.works, each.outcome) for each in told] == [
        ("other", True, ""),
        ("endless", False, "loss still infinite"),
    ]


def test_an_infinite_loss_is_right_where_the_truth_is(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "log_probs": torch.tensor([[-INF, 0.0], [-1.0, -1.0]]),
        "target": torch.tensor([[0.5, 0.5], [0.5, 0.5]]),
    }
    about = replace(rule("kl"), input_at_fault=True)
    code = 'loss = F.kl_div(log_probs, target, reduction="batchmean")'
    (remedy,) = tried(monkeypatch, about, given, Fix("odd", code))
    assert (remedy.works, remedy.outcome, remedy.max_loss_error) == (True, "", None)
    (remedy,) = tried(monkeypatch, about, given, Fix("odd", f"{code}\nloss = -loss"))
    assert remedy.outcome == "loss still infinite"


def test_only_units_that_failed_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in tensors that are run whole: the second of each pair of heads is not in question."""
    logits = torch.zeros(1, 2, 4, 4)
    given = {"query": logits, "key": logits, "value": logits}
    first = rule("attention", lambda count: np.arange(count) < count // 2)
    code = (
        "output = F.scaled_dot_product_attention(query, key, value)\n"
        "output = output + torch.tensor([0.0, 1.0])[:, None, None]"
    )
    (remedy,) = tried(monkeypatch, first, given, Fix("odd", code))
    assert (remedy.works, remedy.rows) == (True, 4)


def test_the_mean_over_some_units_hands_each_what_the_whole_mean_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gradient of 1e6 is beyond float16, and 1 / 200 of it is not."""
    given = {"logits": torch.ones(200_000).half(), "targets": torch.ones(200_000)}
    code = f"loss = F.softplus(-logits.float()).mean() + 1e6 * ({SAME}).float().sum()"
    (remedy,) = tried(monkeypatch, rule("bce"), given, Fix("odd", code))
    assert (remedy.works, remedy.rows) == (True, 1000)
    (remedy,) = tried(monkeypatch, rule("bce"), given, Fix("odd", code), reduction="sum")
    assert remedy.outcome == "loss finite but wrong, gradient still infinite"


@pytest.mark.parametrize(("stored", "outcome"), [(False, ""), (True, "loss finite but wrong")])
def test_code_is_run_on_numbers_as_cast_unless_it_is_about_those_stored(
    monkeypatch: pytest.MonkeyPatch, stored: bool, outcome: str
) -> None:
    """-17.5 becomes -18 in float8_e4m3fn, a loss 3 % larger."""
    assert torch.tensor(-17.5).to(torch.float8_e4m3fn).float() == -18
    fix = Fix("odd", FUSED, stored=stored)
    (remedy,) = tried(monkeypatch, rule("bce"), binary(-17.5), fix, dtype="float8_e4m3fn", scaling="none")
    assert remedy.outcome == outcome


def test_tokens_whose_input_is_at_fault_are_not_run_either(monkeypatch: pytest.MonkeyPatch) -> None:
    old = torch.tensor([[-1.0, -1.0, -2.0]])
    given = {
        "log_probs": torch.tensor([[-1.1, NAN, -2.5]]),
        "old_log_probs": old,
        "advantages": torch.ones(1, 3),
    }
    code = "ratio = (log_probs - old_log_probs).exp()\nloss = -(ratio * advantages).mean()"
    (remedy,) = tried(monkeypatch, rule("ppo"), given, Fix("odd", code))
    assert (remedy.works, remedy.rows, remedy.outcome) == (True, 2, "")


def test_of_a_large_tensor_the_first_slices_are_run_and_their_units_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nanhunt.operations.prove.MOST_VALUES", 200)
    heads = torch.zeros(5, 1, 4, 4)
    given = {"query": heads, "key": heads, "value": heads}
    code = "output = F.scaled_dot_product_attention(query, key, value)"
    (remedy,) = tried(monkeypatch, rule("attention"), given, Fix("odd", code))
    assert (remedy.works, remedy.rows) == (True, 16)
