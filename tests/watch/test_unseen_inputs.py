"""An operation of which only the result was kept by the graph: no number is said of what went in."""

from __future__ import annotations

import pytest
import torch

from nanhunt.watch.causes import cause_of
from nanhunt.watch.numbers import Signs
from nanhunt.watch.observer import Observation
from nanhunt.watch.scene import Scene
from nanhunt.watch.step_graph import StepGraph


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ("exp", "x is larger than 88.7228, the largest x whose exp is finite in float32"),
        ("addmm", "the result is larger than 3.40282e+38, the largest float32"),
    ],
)
def test_nothing_is_said_of_inputs_that_nobody_saw(op: str, reason: str) -> None:
    result = torch.tensor([1.0, float("inf")])
    seen = Observation(0, op, None, None, result, Signs.of(result), legal=False)
    cause = cause_of(Scene(seen, None, StepGraph([])))
    assert cause.reason == reason
    assert "to 0" not in cause.fix
