"""Failure cases with the values PyTorch was seen to give: the public API must see the same, and name the cause.

``cases.json`` holds what was observed; which rules hold for each case is written out here by hand from the table.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanhunt
from nanhunt.operations.rules import RULES
from nanhunt.results.finding import Severity
from nanhunt.results.report import Report

CASES = {case["id"]: case for case in json.loads((Path(__file__).parent / "cases.json").read_text())}
SPELLINGS = {"naive": "naive", "softmax_then_log": "log-of-softmax", "torch_stable": "fused"}

EXPECTED: dict[str, list[str]] = {
    # exp or sum overflow; the label's p is finite/inf = 0 unless it is the class that is inf/inf
    "A01": ["NH101", "NH201"], "A02": ["NH101"], "A03": ["NH101"], "A04a": ["NH202", "NH401"],
    "A05": ["NH102", "NH201", "NH401", "NH402"], "A06": ["NH102", "NH201", "NH401"],
    "A07": ["NH102", "NH201", "NH401", "NH402"],
    "A08": ["NH101", "NH201"], "A09": ["NH101", "NH201"],
    # underflow; B01: -1000 + log(s) rounds to 6e-5, the loss is 0.4
    "B01": ["NH103", "NH203"], "B02": ["NH103"], "B03": ["NH103"], "B07": ["NH201"], "B09": ["NH201", "NH401"],
    "B11": ["NH301"], "B13": ["NH301"],
    # precision; C08: the three logits are all 4096 in float16, whose log(s) is absorbed; C11: p - 1 and p are 0
    "C01": ["NH202"], "C03": ["NH202"], "C07": ["NH101"], "C08": ["NH101", "NH203"], "C11": ["NH101", "NH202", "NH302"],
    # not finite already; exp(+inf) is inf, and finite/inf = 0 at the label
    "D01": ["NH001"], "D02": ["NH002", "NH101", "NH201"], "D03": ["NH002", "NH101", "NH201"],
    "D05": ["NH002", "NH006", "NH101", "NH201"], "D08": ["NH003", "NH006", "NH103"], "D09": ["NH101", "NH201"],
    "D10": ["NH001"], "D11": ["NH001", "NH008"],
    # many classes, all logits 0, in float16: 1/65504 is subnormal; 65,520 exps are inf in naive and in fused
    "F01_65504": ["NH301", "NH402"], "F01_65520": ["NH010", "NH102", "NH201", "NH302", "NH402"], "F06": ["NH402"],
    # casts and temperature
    "G01": ["NH004", "NH101"], "G02": ["NH101", "NH201", "NH401"], "G03": ["NH004", "NH201"],
    "G04": ["NH009", "NH101"], "G05": ["NH009", "NH101", "NH201"], "G06": ["NH101"], "G07": ["NH009", "NH101"],
    # the loss's own options
    "H01": ["NH007"], "H01b": [], "H02": ["NH009"], "H02b": ["NH006", "NH009", "NH201"], "H03": ["NH009"],
    "H04": ["NH009"], "H05": ["NH005"], "H08": ["NH101"],
}  # fmt: skip
AFFECTED = {"D09": [1], "D10": [1], "D11": [1], "H01": [0, 1], "H02": [0, 1], "H02b": [0]}
"""Rows of every finding, where a case has several rows."""
HARMLESS = ["A04a", "C01", "C03", "F06", "H01b"]


def array(values: Any) -> np.ndarray:
    """Row as JSON holds them, with "nan" and "inf" as strings."""
    if isinstance(values, dict):
        return np.zeros(values["shape"], np.float32)
    return np.array([[float(value) for value in row] for row in values], np.float32)


def judged(case: dict[str, Any], compares: bool) -> Report:
    """The report on one case, with the options it names."""
    options = dict(case["options"])
    weights = options.pop("weight", None)
    targets = array(case["targets"]) if options.pop("soft", False) else np.array(case["targets"])
    judge = nanhunt.compare if compares else nanhunt.check
    return judge(
        array(case["logits"]), targets, case["dtype"],
        class_weights=None if weights is None else np.array(weights), **options,
    )  # fmt: skip


def bad_rows(seen: dict[str, Any]) -> dict[str, int]:
    """Rows by kind of failure, from what was observed."""
    losses = [float(loss) for loss in seen["loss_rows"]]
    gradients = [seen["grad"]["first3"]] if isinstance(seen["grad"], dict) else seen["grad"]
    softmax = [seen["softmax"]["first3"]] if isinstance(seen["softmax"], dict) else seen["softmax"]
    return {
        "nan_probability_rows": sum(any(math.isnan(float(p)) for p in row) for row in softmax),
        "inf_loss_rows": sum(math.isinf(loss) for loss in losses),
        "nan_loss_rows": sum(math.isnan(loss) for loss in losses),
        "nonfinite_gradient_rows": sum(not all(math.isfinite(float(g)) for g in row) for row in gradients),
    }


def test_every_case_has_an_expectation() -> None:
    assert set(EXPECTED) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_what_happens_is_what_was_observed(name: str) -> None:
    case = CASES[name]
    tensor = judged(case, compares=True).tensors[0]
    unit = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}[case["dtype"]]
    for spelling, seen in case["observed"].items():
        implementation = tensor.implementations[SPELLINGS[spelling]]
        if "error" in seen:
            assert name == "H05"
            continue
        got = {kind: getattr(implementation, kind) for kind in bad_rows(seen)}
        assert got == bad_rows(seen), spelling
        assert implementation.loss == pytest.approx(
            float(seen["loss"]), rel=8 * unit, abs=8 * unit, nan_ok=True
        )


@pytest.mark.parametrize("compares", [True, False], ids=["compare", "check"])
@pytest.mark.parametrize("name", CASES)
def test_rules_and_cause_are_those_of_the_table(name: str, compares: bool) -> None:
    report = judged(CASES[name], compares)
    expected = EXPECTED[name]
    assert [finding.code for finding in report.findings] == expected
    rows = AFFECTED.get(name, [0] if expected else [])
    assert all(list(finding.rows) == rows for finding in report.findings)
    causes = {edge.first: edge.causes for edge in report.tensors[0].strip if edge.causes}
    assert list(causes) == rows
    assert all(cause == ((expected[0], 1),) for cause in causes.values())
    severe = any(RULES[code].severity != Severity.NOTE for code in expected)
    assert report.exit_code == int(severe)


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_cases_have_no_finding_above_a_note(name: str) -> None:
    assert judged(CASES[name], compares=False).ok
    assert judged(CASES[name], compares=True).ok


def mask(shape: tuple[int, int], every: int) -> np.ndarray:
    """Harmless logits with -inf at every ``every``-th class from the first on."""
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    x[:, ::every] = -np.inf
    return x


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("every", [2, 3, 50])
@pytest.mark.parametrize("judge", [nanhunt.check, nanhunt.compare])
def test_a_legal_mask_is_no_finding(judge: Any, dtype: str, every: int) -> None:
    assert judge(mask((20, 50), every), np.full(20, 1), dtype).findings == ()
    assert judge(mask((20, 50), every), None, dtype).findings == ()


@pytest.mark.parametrize("judge", [nanhunt.check, nanhunt.compare])
def test_all_but_the_label_masked_is_certain_and_healthy(judge: Any) -> None:
    x = np.full((3, 4), -np.inf, np.float32)
    x[:, 2] = [0.0, -5.0, 50.0]
    assert judge(x, np.full(3, 2)).findings == ()


def counted(*given: Any, **options: Any) -> dict[str, int]:
    """How many rows each rule holds for, on the quick way of ``check``."""
    return {finding.code: finding.count for finding in nanhunt.check(*given, **options).findings}


def test_so_many_nearly_equal_logits_overflow_the_row_sum_of_float16() -> None:
    logits = np.full((2, 70_000), -1.0, np.float16)
    logits[:, 0] = -1.5  # not of one number, which is looked at closer anyway
    assert counted(logits, np.zeros(2, int))["NH010"] == 2


def test_an_ignored_row_has_no_gradient_to_lose() -> None:
    logits = np.zeros((15_000, 3), np.float16)
    logits[:4, 0] = 8.5
    labels = np.zeros(15_000, int)
    assert counted(logits, labels)["NH302"] == 4
    labels[1] = -100
    assert counted(logits, labels)["NH302"] == 3


def test_float8_rounds_what_lies_halfway_to_its_largest_number_and_keeps_a_mask() -> None:
    logits = np.array([[464.0, -np.inf], [464.5, 0.0]], np.float32)
    assert counted(logits, np.zeros(2, int), "float8_e4m3fn", scaling="none")["NH004"] == 1


@pytest.mark.parametrize(
    ("row", "dtype", "options"),
    [([-85.0, 0.0], "float32", {"temperature": -1.0}), ([-60_000.0, 0.0], "float16", {})],
)
def test_headroom_is_that_of_what_is_computed(
    row: list[float], dtype: str, options: dict[str, float]
) -> None:
    assert counted(np.array([row], np.float32), np.array([1]), dtype, **options)["NH401"] == 1
