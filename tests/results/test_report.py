"""The report adds up in any order and survives JSON."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanhunt.results.counted import Healthy
from nanhunt.results.exit_code import ExitCode
from nanhunt.results.finding import Finding, RemedyResult, Severity
from nanhunt.results.order import natural_key
from nanhunt.results.report import ReadError, Report, merge
from nanhunt.results.tensor import (
    Health,
    Histogram,
    Implementation,
    RowBin,
    RowView,
    Targets,
    TensorReport,
    Truth,
    WorstRow,
)

numbers = st.floats(width=64)
maybe = st.none() | numbers
counts = st.integers(0, 10**12)
names = st.text(max_size=6) | st.sampled_from(
    ["step-2.npy", "step-10.npy", "step-²", "\ud800", "\x1b[2J", "1" * 5000]
)


def rows_of(strategy):
    return st.lists(strategy, max_size=3).map(tuple)


remedies = st.builds(
    RemedyResult, title=names, snippet=names, rows=counts, bad_rows_after=counts, max_loss_error=maybe
)
findings = st.builds(
    Finding,
    name=names,
    severity=st.sampled_from(Severity),
    count=counts,
    rows=rows_of(counts),
    remedies=rows_of(remedies),
)
histograms = st.builds(
    Histogram, positive=rows_of(counts), negative=rows_of(counts), counted=counts, total=counts, zero=counts
)
views = st.builds(RowView, name=names, loss=maybe, probabilities=rows_of(numbers), gradient=rows_of(numbers))
worst_rows = st.builds(
    WorstRow, cause=names, max=maybe, classes=rows_of(counts), logits=rows_of(numbers), views=rows_of(views)
)
bins = st.builds(RowBin, max=maybe, causes=rows_of(st.tuples(names, counts)))
tensors = st.builds(
    TensorReport,
    file=names,
    tensor=names,
    role=st.sampled_from(["logits", "values"]),
    shape=rows_of(counts),
    targets=st.none() | st.builds(Targets, source=names),
    health=st.builds(Health, min=maybe, max=maybe),
    options=st.sampled_from([{}, {"fail_on": "never"}, {"dtype": ("float16",)}]),
    coordinates=st.sampled_from([{}, {"step": 3}]),
    origin=st.sampled_from(["", "job.json"]),
    implementations=st.dictionaries(
        st.sampled_from(["naive", "fused"]),
        st.builds(Implementation, loss=maybe, max_loss_error=maybe),
        max_size=2,
    ),
    truth=st.none() | st.builds(Truth, loss=maybe, cast_loss_error=maybe),
    findings=rows_of(findings),
    notes=rows_of(names),
    histogram=st.none() | histograms,
    strip=rows_of(bins),
    worst_rows=rows_of(worst_rows),
)
groups = st.builds(
    Healthy,
    operation=st.sampled_from(["values", "cross_entropy"]),
    stored_dtype=st.just("float32"),
    dtype=st.sampled_from(["float32", "float16"]),
    options=st.sampled_from([{}, {"fail_on": "never"}]),
    notes=rows_of(st.sampled_from(["cast", "masked"])),
    files=st.dictionaries(names, st.integers(1, 9), max_size=3),
)
values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=3)
    | st.lists(st.text(max_size=3), max_size=2)
)
reports = st.builds(
    Report,
    options=st.dictionaries(st.sampled_from(["dtype", "fail_on", "ignore"]), values, max_size=3),
    tensors=rows_of(tensors),
    errors=rows_of(st.builds(ReadError, file=names, message=names, hint=names)),
    healthy=rows_of(groups),
    exit_code=st.sampled_from([0, 1, 2]),
)


@settings(max_examples=30, deadline=None)
@given(reports)
def test_json_round_trip(report):
    text = report.to_json()
    assert Report.from_json(text).to_json() == text


@settings(max_examples=30, deadline=None)
@given(reports)
def test_json_is_strict_and_can_be_written_as_utf8(report):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads(report.to_json().encode("utf-8"), parse_constant=refuse)


@settings(max_examples=30, deadline=None)
@given(reports, reports, reports)
def test_adding_is_associative(one, two, three):
    assert ((one + two) + three).to_json() == (one + (two + three)).to_json()


@settings(max_examples=30, deadline=None)
@given(st.lists(reports, min_size=2, max_size=3))
def test_adding_is_order_free(several):
    sums = {merge(order).to_json() for order in itertools.permutations(several)}
    assert len(sums) == 1


@settings(max_examples=30, deadline=None)
@given(reports, reports)
def test_adding_commutes_with_counting(one, two):
    assert (one.counted() + two.counted()).to_json() == (one + two).to_json()
    assert one.counted().counted() == one.counted()


@settings(max_examples=30, deadline=None)
@given(reports)
def test_a_verbose_report_lists_what_is_counted_else(report):
    body = json.loads(report.to_json(verbose=True))
    assert len(body["tensors"]) == len(report.tensors)
    counted = json.loads(report.to_json())
    healthy = sum(number for group in counted["healthy"] for number in group["files"].values())
    already = sum(number for group in report.healthy for number in group.files.values())
    assert len(counted["tensors"]) + healthy == len(report.tensors) + already


@settings(max_examples=30, deadline=None)
@given(reports, reports)
def test_adding_commutes_with_json(one, two):
    # A matrix of jobs saves JSON and joins it later: the same report as one job would have written.
    reread = Report.from_json(one.to_json()) + Report.from_json(two.to_json())
    assert reread.to_json() == (one + two).to_json()


def test_sum_starts_from_zero_and_the_empty_report_is_neutral():
    one = Report(
        {"dtype": ["float16"]}, errors=(ReadError("b", "m", "h"), ReadError("a", "m", "h")), exit_code=2
    )
    assert sum([one, Report()]) == one + Report() == Report() + one
    assert [error.file for error in sum([one]).errors] == ["b", "a"]
    assert merge([]) == Report()


def test_exit_codes_add_up_to_the_worst():
    total = sum([Report(exit_code=1), Report(exit_code=2), Report()])
    assert total.exit_code == ExitCode.ERROR
    assert not total.ok
    assert Report().ok


def test_options_that_differ_are_various():
    assert (Report({"a": 1, "b": 2}) + Report({"a": 1, "b": 3})).options == {"a": 1, "b": "various"}


def test_options_from_python_and_from_json_agree():
    # Options hold tuples; JSON gives lists back. Joining both must not call them various.
    fresh = Report({"dtype": ("float16",)})
    assert (fresh + Report.from_json(fresh.to_json())).options["dtype"] not in ("various",)


def test_only_reports_add():
    with pytest.raises(TypeError):
        Report() + 1
    with pytest.raises(TypeError):
        1 + Report()


def test_natural_order():
    ordered = ["step-1", "step-02", "step-2b", "step-10", "step-" + "9" * 5000, "²"]
    backwards = ordered[::-1]
    assert sorted(backwards, key=natural_key) == ordered


@pytest.mark.parametrize("text", ["", "nan", "[]", "{}", '{"format_version": 2}', '{"tensors": []}', "\x00"])
def test_what_is_no_report_is_refused(text):
    with pytest.raises(ValueError):
        Report.from_json(text)


@pytest.mark.parametrize(
    ("version", "way_out"), [("1", "save it again"), ("99", "read it with the nanhunt"), ('"2"', "read it")]
)
def test_another_format_version_is_refused_by_name(version, way_out):
    text = Report().to_json().replace('"format_version": 2', f'"format_version": {version}')
    with pytest.raises(ValueError, match=f"format version .?{version.strip(chr(34))}.*{way_out}"):
        Report.from_json(text)


def test_thousands_of_healthy_files_are_a_small_report():
    health = Health(0, 0, 0, 0, 0, -1.0, 1.0)
    options = {"dtype": (), "fail_on": "warning"}
    tensors = tuple(
        TensorReport(
            f"/data/runs/2026-11-24/llama-8b-sft/dumps/rank-{n % 8}/step-{n}.npy", "", "logits", "cross-entropy",
            "float32", "float32", (64, 100), 64, 100, None, health, {}, None, (), options=options,
        )
        for n in range(2000)
    )  # fmt: skip
    assert len(Report(options, tensors).to_json()) < 300_000


def test_a_damaged_report_is_refused():
    tensor = json.loads(Report().to_json()) | {"tensors": [{"file": "a.npy"}]}
    with pytest.raises(ValueError, match="not a whole"):
        Report.from_json(json.dumps(tensor))


def test_nonfinite_numbers_are_named():
    body = json.loads(_with_truth(math.inf).to_json())
    assert body["tensors"][0]["truth"]["loss"] == "inf"


def _with_truth(loss):
    health = Health(0, 0, 0, 0, 0, 0.0, 0.0)
    return Report(
        tensors=(
            TensorReport(
                "a",
                "",
                "logits",
                "cross-entropy",
                "float32",
                "float32",
                (1, 1),
                1,
                1,
                None,
                health,
                {},
                Truth(loss),
                (),
            ),
        )
    )
