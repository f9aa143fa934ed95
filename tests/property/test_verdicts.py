"""check and compare against running PyTorch on every row, on rows at both sides of every cliff and every bound."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import LIMITS, ORDER, Problem, Seen, observe

import nanhunt
from nanhunt.operations.cross_entropy.forms import IMPLEMENTATIONS
from nanhunt.results.finding import Severity
from nanhunt.results.report import Report
from nanhunt.results.tensor import TensorReport

EXAMPLES = 15
ROW_LIMIT = 100_000
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
HALVES = (torch.float16, torch.bfloat16)
PAIRS = [  # (stored, judged in)
    *((dtype, dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, *FLOAT8)),
    (torch.float32, torch.float16), (torch.float32, torch.bfloat16), (torch.float32, torch.float8_e4m3fn),
    (torch.float32, torch.float8_e5m2), (torch.float64, torch.float32), (torch.float64, torch.float16),
    (torch.float64, torch.bfloat16), (torch.bfloat16, torch.float16), (torch.float16, torch.float32),
    (torch.float16, torch.bfloat16), (torch.float8_e4m3fn, torch.float16), (torch.bfloat16, torch.float64),
]  # fmt: skip


@contextlib.contextmanager
def verdicts_alone() -> Iterator[None]:
    """No fix is run, which takes longer than all verdicts; test_printed_fixes holds the fixes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nanhunt.operations.cross_entropy.proof.prove", lambda *_: ())
        yield


@pytest.fixture(autouse=True, scope="module")
def _verdicts_alone() -> Iterator[None]:
    with verdicts_alone():
        yield


def name(dtype: torch.dtype) -> str:
    """As nanhunt spells it."""
    return str(dtype).removeprefix("torch.")


def cliffs(dtype: torch.dtype, classes: int) -> list[float]:
    """Logits, or gaps between logits, at which something happens in that format, or a bound of the screen ends."""
    compute = torch.float32 if dtype in FLOAT8 else dtype
    limit, largest, normal = LIMITS[compute]
    eps, tiny = torch.finfo(compute).eps, normal * torch.finfo(compute).eps
    log_c = math.log(classes)
    at = [
        limit, 0.9 * limit, math.log(largest), math.log(largest) - log_c, -math.log(normal), -math.log(normal) - log_c,
        -math.log(tiny), math.log(2) - math.log(tiny), -math.log(tiny) - log_c, -math.log(4 * tiny), -math.log(eps / 2),
        -math.log(eps / 4), -math.log(8 * eps), -math.log(eps / 2) + log_c, 32.0 * max(1.0, log_c), 0.9 * largest,
        0.9 * LIMITS[dtype][1], LIMITS[dtype][1], largest, 1.0, 100.0, 0.0,
    ]  # fmt: skip
    return [sign * value for value in at for sign in (1.0, -1.0)]


NUDGES = (0.0, 1e-6, 1e-3, 0.02, 0.05, 0.09, 0.1, 0.101, 0.15, 0.3, 0.31, 0.7, 1.5, 5.0)
KINDS = ("healthy", "flat", "top", "gap", "split", "huge", "special")


def edge(draw: Any, dtype: torch.dtype, classes: int) -> float:
    """A cliff, nudged to one side or the other."""
    cliff = draw(st.sampled_from(cliffs(dtype, classes)))
    nudge = draw(st.sampled_from(NUDGES)) * draw(st.sampled_from((-1.0, 1.0)))
    return cliff + nudge if abs(cliff) < 1e4 else cliff * (1 + nudge / 100)


def one_row(draw: Any, dtype: torch.dtype, classes: int, label: int) -> np.ndarray:
    """float64 values of one row of some kind."""
    kind = draw(st.sampled_from(KINDS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = rng.standard_normal(classes) * draw(st.sampled_from((0.0, 1e-3, 0.3, 1.0, 3.0)))
    if kind == "healthy":
        row = noise + draw(st.sampled_from((0.0, 0.0, 3.0, -3.0)))
    elif kind == "flat":
        row = edge(draw, dtype, classes) + noise * draw(st.sampled_from((0.0, 0.01)))
    elif kind == "top":  # one class up there, the rest anywhere below
        row = noise + draw(st.sampled_from((0.0, -5.0, -50.0)))
        row[draw(st.integers(0, classes - 1))] = edge(draw, dtype, classes)
    elif kind == "gap":  # the label that far below or above the rest, the whole row that far from 0
        row = np.minimum(noise, 0.0)
        row[label] = edge(draw, dtype, classes)
        row += draw(st.sampled_from((0.0, 0.0, 5.0, -5.0, 60.0, -60.0)))
    elif kind == "split":
        row = (
            np.where(rng.random(classes) < 0.5, edge(draw, dtype, classes), edge(draw, dtype, classes))
            + noise
        )
    elif kind == "huge":
        row = noise * 10.0 ** draw(st.integers(2, 39))
    else:
        row = noise.copy()
        row[draw(st.integers(0, classes - 1))] = draw(st.sampled_from((math.nan, math.inf, -math.inf)))
        if draw(st.booleans()):
            row[draw(st.integers(0, classes - 1))] = draw(st.sampled_from((math.nan, math.inf, -math.inf)))
    return masked(draw, row, rng, label)


def masked(draw: Any, row: np.ndarray, rng: np.random.Generator, label: int) -> np.ndarray:
    """Now and then with -inf over a part of the classes, mostly sparing the label."""
    share = draw(st.sampled_from((0.0, 0.0, 0.0, 0.3, 0.7, 1.0)))
    hidden = rng.random(len(row)) < share
    if draw(st.integers(0, 9)):
        hidden[label] = False
    return np.where(hidden, -np.inf, row)


def labels_for(draw: Any, rows: int, classes: int) -> list[int]:
    """Labels, a few ignored or out of range."""
    odd = st.sampled_from((-100, -100, -1, classes, -101))
    usual = st.integers(0, classes - 1)
    strange = draw(st.sampled_from((0, 0, 1, 3, 10)))
    return [draw(odd) if draw(st.integers(0, 9)) < strange else draw(usual) for _ in range(rows)]


@st.composite
def problems(draw: Any, stored: torch.dtype, dtype: torch.dtype, optional: bool) -> Problem:
    """Logits, targets and options; ``optional``: with the loss's own options."""
    classes = draw(st.sampled_from((1, 2, 2, 3, 5, 17, 130)))
    rows = draw(st.integers(1, 8))
    labels = labels_for(draw, rows, classes)
    inside = [label if 0 <= label < classes else 0 for label in labels]
    values = np.stack([one_row(draw, dtype, classes, label) for label in inside])
    padding = draw(st.sampled_from((0, 0, 0, 0, 40, 1200)))  # healthy rows, which make N large
    if padding:
        values = np.concatenate([values, np.tile(np.linspace(-1, 1, classes), (padding, 1))])
        labels += [0] * padding
    with np.errstate(over="ignore"):
        logits = torch.from_numpy(values).to(stored)
    problem = Problem(logits, dtype, reduction=draw(st.sampled_from(("mean", "sum"))))
    targeted = draw(st.sampled_from(("labels", "labels", "labels", "none", "soft" if optional else "none")))
    if targeted == "labels":
        problem.labels = torch.tensor(labels)
    elif targeted == "soft":
        problem.probabilities = soft_targets(draw, len(values), classes)
    if optional:
        problem.temperature = draw(st.sampled_from((1.0, 0.5, 2.0, 10.0, 0.001, 1e-8, 0.0)))
        problem.smoothing = draw(st.sampled_from((0.0, 0.0, 0.1)))
        # Without targets the labels are ours, and there is no sum of their weights to divide by.
        problem.weights = None if targeted == "none" else class_weights(draw, classes)
    return with_layout(draw, problem)


def soft_targets(draw: Any, rows: int, classes: int) -> torch.Tensor:
    """Probabilities, some of them 0."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y = rng.random((rows, classes)) * (rng.random((rows, classes)) < 0.7) + 1e-3 * np.eye(1, classes)
    return torch.from_numpy(y / y.sum(-1, keepdims=True)).float()


def class_weights(draw: Any, classes: int) -> torch.Tensor | None:
    """None, or one weight per class: some 0, rarely NaN or inf."""
    if draw(st.booleans()):
        return None
    values = st.sampled_from((1.0, 0.5, 2.0, 0.0, 0.25, 1.0, 3.0))
    weights = [draw(values) for _ in range(min(classes, 5))] + [1.0] * max(0, classes - 5)
    if draw(st.integers(0, 9)) == 0:
        weights[0] = draw(st.sampled_from((math.nan, math.inf)))
    return torch.tensor(weights, dtype=torch.float64)


def with_layout(draw: Any, problem: Problem) -> Problem:
    """The same as (rows, classes), or as (N, classes, d)."""
    rows = problem.stored.shape[0]
    if draw(st.integers(0, 3)):
        return problem
    d = 2 if rows % 2 == 0 else 1
    problem.axis = 1
    problem.stored = problem.stored.reshape(rows // d, d, -1).movedim(1, -1).contiguous()
    if problem.labels is not None:
        problem.labels = problem.labels.reshape(rows // d, d)
    if problem.probabilities is not None:
        problem.probabilities = problem.probabilities.reshape(rows // d, d, -1).movedim(1, -1).contiguous()
    return problem


def judged(problem: Problem, compares: bool) -> TensorReport:
    """The verdict of the public API."""
    judge = nanhunt.compare if compares else nanhunt.check
    report: Report = judge(
        problem.stored, problem.labels if problem.labels is not None else problem.probabilities, problem.dtype,
        class_weights=problem.weights, class_axis=problem.axis, temperature=problem.temperature,
        label_smoothing=problem.smoothing, reduction=problem.reduction, ignore_index=problem.ignore,
        max_rows=ROW_LIMIT, fail_on="never", scaling="none",
    )  # fmt: skip
    return report.tensors[0]


def hits(rows: torch.Tensor) -> list[int]:
    """Row numbers."""
    numbers: list[int] = rows.nonzero()[:, 0].tolist()
    return numbers


def settle(seen: Seen, tensor: TensorReport) -> None:
    """Where the rounding of the truth decides, either answer is right: the one that is given."""
    if not seen.undecided.any():
        return
    given = next((finding.rows for finding in tensor.findings if finding.code == "NH203"), ())
    said = torch.zeros_like(seen.undecided)
    said[list(given)] = True
    seen.rules["NH203"] = torch.where(seen.undecided, said, seen.rules["NH203"])


def assert_same_rules(tensor: TensorReport, seen: Seen) -> None:
    """Rows per rule, and the cause of each."""
    found = {finding.code: list(finding.rows) for finding in tensor.findings}
    expected = {
        code: hits(seen.rules[code]) for code in ORDER if code in seen.rules and seen.rules[code].any()
    }
    # Of each rule the first 1,000 rows are kept; the counts are of all.
    assert found == {code: rows[:1000] for code, rows in expected.items()}
    assert {finding.code: finding.count for finding in tensor.findings} == {
        k: len(v) for k, v in expected.items()
    }
    causes = seen.causes()
    for part in tensor.strip:
        inside = [cause for cause in causes[part.first : part.last + 1] if cause]
        assert dict(part.causes) == {cause: inside.count(cause) for cause in inside}
    assert tensor.affected_rows == sum(bool(cause) for cause in causes)


def assert_no_verdict_is_missed(tensor: TensorReport, seen: Seen) -> None:
    """Whatever the rules are: errors where ``fused`` fails, warnings where ``naive`` does, and nowhere else."""
    for least, expected in ((Severity.ERROR, seen.error), (Severity.WARNING, seen.warning)):
        severe = [finding for finding in tensor.findings if finding.severity.rank >= least.rank]
        cut = any(finding.count > len(finding.rows) for finding in severe)  # the first 1,000 rows are kept
        told = set().union(*(finding.rows for finding in severe))
        assert told <= set(hits(expected)) if cut else told == set(hits(expected)), least


def assert_same_counts(tensor: TensorReport, seen: Seen, compares: bool) -> None:
    """Of every implementation."""
    targeted = tensor.targets is not None
    for each in IMPLEMENTATIONS:
        got, losses = tensor.implementations[each], seen.losses[each]
        counted = ~seen.bad_label
        assert got.nan_probability_rows == int(seen.nan_probability[each].sum()), each
        numbers = (
            got.zero_target_probability_rows, got.inf_loss_rows, got.nan_loss_rows, got.nonfinite_gradient_rows
        )  # fmt: skip
        if not (compares or targeted):
            assert numbers == (None,) * 4
            continue
        assert numbers == (
            int(seen.zero_target[each].sum()), int((losses.isinf() & counted).sum()),
            int((losses.isnan() & counted).sum()), int(seen.bad_gradient[each].sum()),
        ), each  # fmt: skip


def divided(total: float, divisor: float) -> float:
    """As floating-point numbers are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.float64(total) / np.float64(divisor))


def assert_same_losses(tensor: TensorReport, seen: Seen, problem: Problem) -> None:
    """Row losses added up in float64; and what F.cross_entropy returns for all rows at once."""
    for each in IMPLEMENTATIONS:
        mean = divided(float(seen.losses[each].double().sum()), seen.divisor)
        assert tensor.implementations[each].loss == pytest.approx(mean, rel=1e-9, abs=1e-300, nan_ok=True)
    fused, whole = tensor.implementations["fused"].loss, float(seen.whole_loss.double())
    wide = problem.dtype not in HALVES
    fits = _largest_sum(seen, problem) < 0.9 * LIMITS[seen.losses["fused"].dtype][1]
    if seen.divisor == 0:  # sum / 0 or 0 / 0: with smoothing F.cross_entropy adds one of each
        assert not math.isfinite(whole)
        assert fused is None or not math.isfinite(fused)
    elif fits and not any(finding.code in ("NH010", "NH011") for finding in tensor.findings):
        assert whole == pytest.approx(
            fused, rel=1e-5 if wide else 0.05, abs=1e-6 if wide else 0.02, nan_ok=True
        )


def _largest_sum(seen: Seen, problem: Problem) -> float:
    """What F.cross_entropy adds up on the way: the losses and, before smoothing, -log p of every class."""
    losses = float(seen.losses["fused"].double().sum())
    if not problem.smoothing:
        return losses
    log_p = torch.log_softmax(problem.stored.double() / problem.temperature, problem.axis)
    return max(losses, -float(log_p[log_p.isfinite()].sum()))


def assert_verdicts_are_true(problem: Problem) -> None:
    """check and compare both say what running every row says, and the same."""
    seen = observe(problem)
    check, compare = judged(problem, False), judged(problem, True)
    settle(seen, check)
    for tensor, compares in ((check, False), (compare, True)):
        assert_no_verdict_is_missed(tensor, seen)
        assert_same_rules(tensor, seen)
        assert_same_counts(tensor, seen, compares)
    assert_same_losses(compare, seen, problem)
    assert check.findings == compare.findings
    assert check.strip == compare.strip
    assert (check.health.neginf, check.health.nan, check.health.posinf) == (
        compare.health.neginf, compare.health.nan, compare.health.posinf
    )  # fmt: skip
    assert (check.health.min, check.health.max) == (compare.health.min, compare.health.max)


def rows_at(value: float, classes: int) -> list[tuple[list[float], int]]:
    """(row, label) for everything that a number at a cliff may be: every logit, the top, the label, the gap."""
    rest = classes - 1
    rows: list[tuple[list[float], int]] = [
        ([value] * classes, 0),
        ([value, *[0.0] * rest], 0),
        ([value, *[value - 5.0] * rest], rest),
        ([value - 60.0, *[-60.0] * rest], 0),
    ]
    if rest:
        rows += [
            ([value, *[0.0] * rest], rest),
            ([value, *[-50.0] * rest], rest),
            ([value, value - 3.0, *[-math.inf] * (rest - 1)], 1),
            ([value, 0.0, *[-math.inf] * (rest - 1)], 0),
        ]
    return rows


@pytest.mark.parametrize(
    ("classes", "mode"), [(2, "mean"), (5, "sum"), (60, "mean"), (2, "untargeted"), (60, "untargeted")]
)
@pytest.mark.parametrize(("stored", "dtype"), PAIRS[:10], ids=name)
def test_every_cliff_from_both_sides(
    stored: torch.dtype, dtype: torch.dtype, classes: int, mode: str
) -> None:
    """No luck in it: each cliff and bound, at every distance, in every place of a row."""
    nudges = sorted({sign * nudge for nudge in NUDGES for sign in (1.0, -1.0)})
    at = [
        cliff + nudge if abs(cliff) < 1e4 else cliff * (1 + nudge / 100)
        for cliff in cliffs(dtype, classes)
        for nudge in nudges
    ]
    rows = [row for value in at for row in rows_at(value, classes)]
    logits = torch.tensor([row for row, _ in rows], dtype=torch.float64).to(stored)
    problem = Problem(logits, dtype, reduction="mean" if mode == "untargeted" else mode)
    if mode != "untargeted":
        problem.labels = torch.tensor([label for _, label in rows])
        problem.labels[::97] = problem.ignore
    assert_verdicts_are_true(problem)


@pytest.mark.parametrize("classes", [1350, 1750])
def test_gradients_vanish_where_torch_rounds_them_to_0(classes: int) -> None:
    """p / N on both sides of half the smallest float16: only many rows of many classes come so low unnoticed."""
    rows, labels = 19_000, torch.zeros(19_000, dtype=torch.long)
    logits = torch.zeros(rows, classes, dtype=torch.float16)
    logits[:, 0] = 4.5  # so that the losses, added up, stay well below the largest float16
    leaf = logits.clone().requires_grad_()
    loss = F.cross_entropy(leaf, labels)
    loss.backward()
    assert leaf.grad is not None
    assert loss.isfinite()
    silent = bool((leaf.grad[:, 1:] == 0).all())
    assert silent is (classes == 1750)
    report = nanhunt.check(logits, labels, select="NH302")
    assert [finding.count for finding in report.findings] == ([rows] if silent else [])


@pytest.mark.parametrize(("stored", "dtype"), PAIRS, ids=name)
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_plain_cross_entropy(stored: torch.dtype, dtype: torch.dtype, data: st.DataObject) -> None:
    """What the screen may prove without running it."""
    assert_verdicts_are_true(data.draw(problems(stored, dtype, False)))


@pytest.mark.parametrize(("stored", "dtype"), PAIRS, ids=name)
@given(data=st.data())
@settings(
    max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
def test_with_the_losss_own_options(stored: torch.dtype, dtype: torch.dtype, data: st.DataObject) -> None:
    """Temperature, smoothing, class weights, probability targets."""
    assert_verdicts_are_true(data.draw(problems(stored, dtype, True)))
