"""Numbers and sentences."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanhunt.render import phrases, proofs, scales, severities, verdicts
from nanhunt.render.totals import summary
from nanhunt.results.finding import Severity
from nanhunt.results.report import ReadError, Report


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.96e-4, "3e-4"), (2.91e-4, "3e-4"), (0.0031, "0.0031"), (0.03101, "0.032"), (9.99e-5, "1e-4"), (12.3, "13"),
     (1.0, "1"), (1.2e-7, "1.2e-7"), (123456.0, "130000"), (4e9, "4e9"), (math.inf, "inf"), (0.0, "0")],
)  # fmt: skip
def test_error_bound(value, text):
    assert phrases.error_bound(value) == text


@given(st.floats(1e-300, 1e300))
def test_an_error_bound_is_never_rounded_down_nor_far_up(value):
    assert value * (1 - 1e-9) <= float(phrases.error_bound(value)) <= 1.2 * value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (667.2747802734375, "667.2748"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (-0.0, "0"),
        (None, "-"),
        (2.0, "2"),
    ],
)
def test_number(value, text):
    assert phrases.number(value) == text


def test_where_the_count_cannot_be_known_the_verdict_says_at_least(golden):
    # Two warnings on possibly the same rows, and a note on others: the union is not in the report.
    warnings = [dataclasses.replace(golden.EXP_OVERFLOW, code=code, count=5) for code in ("NH101", "NH201")]
    tensor = dataclasses.replace(
        golden.STEPS[1], findings=(*warnings, golden.HEADROOM), affected_rows=820, strip=()
    )
    assert severities.affected(tensor, Severity.WARNING) == (5, False)
    assert verdicts.verdict(tensor).text.startswith("at least 5 of 4,096 rows break naive code")


def test_all_known_is_said(golden):
    findings = tuple(dataclasses.replace(finding, known=True) for finding in golden.ARTICLES.findings)
    assert (
        "known from the baseline"
        in verdicts.verdict(dataclasses.replace(golden.ARTICLES, findings=findings)).text
    )


def test_a_batch_wide_finding_without_rows(golden):
    finding = dataclasses.replace(
        golden.EXP_OVERFLOW, code="NH007", severity=Severity.ERROR, count=0, rows=()
    )
    tensor = dataclasses.replace(golden.ARTICLES, rows=0, shape=(0, 3), findings=(finding,), affected_rows=0)
    assert phrases.rows_named(finding, tensor) == ""
    assert verdicts.verdict(tensor).text == "the empty batch goes wrong even with F.cross_entropy."


def test_one_dimensional_logits_are_row_0(golden):
    assert phrases.row_name(dataclasses.replace(golden.ARTICLES, shape=(3,)), 0) == "0"


@given(
    st.integers(-140, 120),
    st.lists(st.integers(0, 100), min_size=1, max_size=40),
    st.sampled_from(["float32", "float16", "float64"]),
)
def test_the_window_shows_every_value(golden, first, counts, dtype):
    found = dataclasses.replace(
        golden.ARTICLES.histogram, first_exponent=first, positive=tuple(counts), negative=(0,) * len(counts)
    )
    view = scales.window(found, [dtype], "logits")
    assert sum(scales.total(found, found.positive, e, e + 1) for e in view) == sum(counts)
    assert len(view) >= scales.LEAST


def test_rows_are_not_listed_where_all_are_meant() -> None:
    import numpy as np

    import nanhunt

    (finding, *_), tensor = (report := nanhunt.check(np.full((3, 20, 4), np.nan))).findings, report.tensors[0]
    assert (finding.count, phrases.rows_named(finding, tensor)) == (60, "")


def test_a_graver_finding_is_spoken_of_only_where_there_is_one() -> None:
    import torch

    import nanhunt

    weights = torch.ones(400, 100)
    weights[0, :2] = 1e-9  # two that float16 flushes to 0: a note, for which no fix is run
    (slight,) = nanhunt.check({"w": weights}, op="values", dtype="float16").tensors
    far = torch.tensor([[1e308, -1e308]], dtype=torch.float64)  # there is no wider dtype to fix this in
    (overflow,) = nanhunt.check(far, torch.tensor([1])).tensors
    (spoilt,) = nanhunt.check(
        torch.tensor([[torch.nan, 1.0], [torch.inf, 200.0]]), torch.tensor([0, 1])
    ).tensors
    told = {
        finding.code: proofs.explanation(finding, tensor)
        for tensor in (slight, overflow, spoilt)
        for finding in tensor.findings
        if not finding.remedies
    }
    assert told["NH502"].startswith("Keep this tensor in float32")
    assert told["NH011"].startswith("Compute the loss in a wider dtype")
    assert told["NH101"] == "Mend the input of these rows first: each has a graver finding."


def test_what_was_interrupted_is_not_said_to_be_nothing() -> None:
    rest = ReadError(
        "the rest", "a.npy: of the first 6,264 rows 1 has findings.", "Run it again to judge it."
    )
    for code, said in ((130, "none was judged to its end"), (2, "nothing was judged")):
        assert summary(Report(errors=(rest,), exit_code=code)) == f"0 tensors in 0 files: {said}; 1 not read."
