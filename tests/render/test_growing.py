"""How it came: growth is told with its doubling time and about when it crosses, and not where there is none."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from nanhunt.render.curves_svg import chart, grid
from nanhunt.render.growing import growing, sentences, sparkline
from nanhunt.results.finding import Finding, Severity
from nanhunt.results.report import Report
from nanhunt.results.runup import Curve, curves
from nanhunt.results.tensor import Health, TensorReport

FLOAT16_MAX = 65504.0


def tensor(
    step: int,
    layer: int,
    largest: float,
    bad: bool,
    zeros: int = 0,
    phase: str = "model",
    bits: int | None = None,
) -> TensorReport:
    found = (Finding("NH501", "non-finite-values", Severity.ERROR, 1, (0,), "1 NaN"),) if bad else ()
    path = f"run/checkpoint-{step}"
    return TensorReport(
        file=f"{path}/m.pt", tensor=f"layers.{layer}.w", role="values", operation="values",
        stored_dtype="float16", dtype="float16",
        shape=(100,), rows=0, classes=0, targets=None, health=Health(0, 0, 0, zeros, 0, -largest, 0.0, bits),
        implementations={}, truth=None, findings=found,
        coordinates={"run": "run", "path": path, "step": step, "phase": phase, "layer": layer},
    )  # fmt: skip


def series(
    largest: Callable[[int], float], bad_from: float = math.inf, zeros: Callable[[int], int] = lambda _: 0
) -> Report:
    """Twenty steps of a layer that goes so, beside one that stays as it is."""
    steps = range(10, 210, 10)
    going = [tensor(step, 7, largest(step), step >= bad_from, zeros(step)) for step in steps]
    still = [tensor(step, 0, 1.0, bad=False, bits=7) for step in steps]
    return Report(tensors=(*going, *still))


def layer(report: Report, number: int) -> Curve:
    return next(curve for curve in curves(report, "run") if curve.layer == number)


def test_doubling_and_crossing_of_an_exact_exponential() -> None:
    growth = layer(series(lambda step: 2.0 ** (step / 20)), 7).growth
    assert growth is not None
    assert growth.doubling == pytest.approx(20)
    crossing = 20 * math.log2(FLOAT16_MAX)
    assert (growth.crossing, growth.earliest, growth.latest) == pytest.approx((crossing,) * 3)


def test_noise_widens_the_forecast_around_the_truth() -> None:
    noise = random.Random(3)
    growth = layer(series(lambda step: 2.0 ** (step / 20 + noise.uniform(-0.5, 0.5))), 7).growth
    assert growth is not None
    assert growth.earliest < 20 * math.log2(FLOAT16_MAX) < (growth.latest or math.inf)
    assert growth.earliest < growth.crossing - 1


@pytest.mark.parametrize(
    "largest",
    [
        lambda step: 5.0,
        lambda step: 5.0 + (step % 20) / 10,
        lambda step: 2.0 ** (-step / 20),
        lambda step: 1 + step / 1000,
        lambda step: 0.0,
        lambda step: 1e-6 * 2.0 ** (step / 60),  # it would take more than four times as long again
    ],
)
def test_what_does_not_grow_into_its_limit_is_not_told(largest: Callable[[int], float]) -> None:
    assert layer(series(largest), 7).growth is None


def test_three_steps_are_too_few() -> None:
    few = [tensor(step, 7, 2.0**step, bad=False) for step in (1, 2, 3)]
    assert layer(Report(tensors=tuple(few)), 7).growth is None


def test_only_what_was_before_the_fault_is_fitted() -> None:
    curve = layer(series(lambda step: 2.0 ** (step / 20) if step < 150 else 1e-3, bad_from=150), 7)
    assert curve.growth is not None
    assert curve.growth.doubling == pytest.approx(20)
    assert [point.bad for point in curve.points].index(True) == 14


def test_in_words() -> None:
    report = series(lambda step: 2.0 ** (step / 20), bad_from=150)
    grows, room, still = sentences(curves(report, "run"), "step")
    assert grows == (
        "layers.7.w grows ▁▁▁▂▂▃▃▃▄▄▅▅▆▆xxxxxx from 1.41 at step 10 to 128 at step 140, doubling every 20 steps"
    )
    assert room == "there it was still 512 times below 65504, the largest number of float16"
    assert still == "never changes: 1 of 2 layers (layer 0)"


def test_a_forecast_has_bounds() -> None:
    told = sentences(curves(series(lambda step: 2.0 ** (step / 20)), "run"), "step")
    assert (
        told[1] == "at that rate it reaches 65504, the largest number of float16, about step 320 (320 to 320)"
    )


def test_the_chart_has_letters_alone_where_those_are_all_there_is() -> None:
    curve = layer(series(lambda step: 2.0 ** (step / 20), bad_from=150), 7)
    assert sparkline(curve, ascii=True).isascii()
    assert len(sparkline(curve)) == 20
    assert sparkline(curve)[-1] == "x"


def test_a_layer_that_dies_is_told() -> None:
    told = sentences(curves(series(lambda step: 1.0, zeros=lambda step: step // 3), "run"), "step")
    assert "zeros of layer 7 rise from 3% to 66% of its values" in told


def test_optimizer_state_is_left_out() -> None:
    counters = [tensor(step, 1, 2.0**step, bad=False, phase="optimizer") for step in range(8)]
    assert curves(Report(tensors=tuple(counters)), "run") == []


def test_counted_and_listed_tensors_give_the_same_curves() -> None:
    report = series(lambda step: 2.0 ** (step / 20), bad_from=150)
    assert curves(report.counted(), "run") == curves(report, "run")
    assert curves(Report.from_json(report.to_json()), "run") == curves(report, "run")


def test_the_first_to_cross_comes_first() -> None:
    slow = series(lambda step: 2.0 ** (step / 20))
    fast = tuple(replace(tensor(step, 9, 2.0 ** (step / 14), bad=False)) for step in range(10, 210, 10))
    found = growing(curves(replace(slow, tensors=(*slow.tensors, *fast)), "run"))
    assert [curve.layer for curve in found] == [9, 7]


def test_the_grid_has_a_cell_for_each_step_and_layer_and_stays_small() -> None:
    report = series(lambda step: 2.0 ** (step / 20), bad_from=150)
    picture = grid(curves(report, "run"))
    assert picture.count("<rect") == 40
    assert picture.count('class="bad"') == 6
    many = Report(
        tensors=tuple(tensor(s, n, 1.0, bad=False) for s, n in itertools.product(range(300), range(40)))
    )
    assert grid(curves(many, "run")).count("<rect") <= 6000


def test_the_chart_marks_limit_and_fault() -> None:
    picture = chart(layer(series(lambda step: 2.0 ** (step / 20), bad_from=150), 7))
    assert picture.count("<circle") == 20
    assert picture.count('class="bad"') == 6
    assert 'class="cliff"' in picture


def test_what_did_not_change_until_everything_went_bad_never_changed() -> None:
    report = series(lambda step: 1 + step / 1000)
    last = [tensor(210, number, 1.0, bad=True) for number in (0, 7)]
    found = curves(Report(tensors=(*report.tensors, *last)), "run")
    assert sentences(found, "step") == ["never changes: 1 of 2 layers (layer 0)"]


def test_what_crossed_its_limit_already_is_not_foretold() -> None:
    logits = [
        replace(tensor(step, 7, 1.5**step, bad=False), role="logits", dtype="float32")
        for step in range(1, 13)
    ]
    _, said = sentences(curves(Report(tensors=tuple(logits)), "run"), "step")
    assert said == "from step 12 on it is above 88.723, the largest x whose exp is finite in float32"
