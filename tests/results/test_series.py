"""Where it began: by step, phase, call or layer, and then by rank; the same for a report added up from several."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import pytest

from nanhunt.render.where import sentences, understood
from nanhunt.results.finding import Finding, Severity
from nanhunt.results.report import Logged, Report, merge
from nanhunt.results.series import runs, spans
from nanhunt.results.tensor import Health, TensorReport

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def tensor(file: str, name: str = "w", severity: Severity | None = None, **at: Any) -> TensorReport:
    """At those coordinates of a run, with a finding of that severity."""
    found = (
        (Finding("NH501", "non-finite-values", severity, 1, (0,), "1 NaN of 8 values"),) if severity else ()
    )
    return TensorReport(
        file=file, tensor=name, role="values", operation="values",
        stored_dtype="float32", dtype="float32", shape=(8,), rows=0, classes=0,
        targets=None, health=Health(0, 0, 0, 2, 0, -3.0, 1.0), implementations={}, truth=None, findings=found,
        coordinates={"run": "run", **at},
    )  # fmt: skip


def checkpoints(bad_from: int) -> Report:
    """Steps 10 to 50 of two weights and their state; a layer is bad from one on, everything a step later."""
    tensors = []
    for step, (phase, layer) in itertools.product(
        range(10, 60, 10), itertools.product(("model", "optimizer"), (0, 1))
    ):
        bad = step > bad_from or (step == bad_from and layer == 1)
        path = f"run/checkpoint-{step}"
        at = {"path": path, "step": step, "phase": phase, "layer": layer}
        tensors.append(tensor(f"{path}/{phase}.pt", f"layers.{layer}.w", ERROR if bad else None, **at))
    return Report(tensors=tuple(tensors))


def told(report: Report) -> list[str]:
    (run,) = runs(report)
    return sentences(run)


def test_a_series_of_checkpoints() -> None:
    (run,) = runs(checkpoints(30))
    assert understood(run) == "run: 5 steps from 10 to 50, 2 layers; order: step, layer"
    assert sentences(run) == [
        "last good: run/checkpoint-20, first bad: run/checkpoint-30 (model 1 of 2, optimizer 1 of 2 tensors)",
        "first bad: step 30, layers.1.w: 1 NaN of 8 values",
        "clean at step 20; 2 of 4 tensors bad at step 30, all at step 40",
    ]


def adapters(moved_at: int | None) -> Report:
    """Steps 10 to 30 of two adapters; one is 0 at each, the other until it moves."""
    zero = Finding("NH511", "adapter-is-zero", NOTE, 8, (), "all 8 values are 0")
    found = []
    for step, name in itertools.product((10, 20, 30), ("a.lora_B", "b.lora_B")):
        one = tensor(f"run/{step}/adapter.pt", name, path=f"run/{step}", step=step, phase="model")
        is_zero = name == "a.lora_B" or moved_at is None or step < moved_at
        found.append(replace(one, findings=(zero,)) if is_zero else one)
    return Report(tensors=tuple(found))


def test_an_adapter_that_is_zero_at_every_step_was_never_trained() -> None:
    one = "never trained: a.lora_B is 0 at all 3 steps: no gradient reached it"
    assert told(adapters(moved_at=20)) == [one]
    assert told(adapters(moved_at=20).counted()) == [one]
    assert told(adapters(None)) == [
        "never trained: a.lora_B and 1 more are 0 at all 3 steps: no gradient reached them"
    ]
    assert adapters(None).exit_code == 0  # another adapter may be the one that trains: no alarm


def test_what_else_lies_in_a_checkpoint_does_not_hide_that_it_is_one() -> None:
    whole = checkpoints(30)
    other = [
        tensor(f"c{step}/rng.pt", "n", path=f"run/checkpoint-{step}", step=step) for step in range(10, 60, 10)
    ]
    assert told(replace(whole, tensors=(*whole.tensors, *other)))[0] == told(whole)[0]


def test_bad_from_the_start() -> None:
    assert told(checkpoints(10))[0].startswith("last good: none, first bad: run/checkpoint-10 ")


def test_a_healthy_series_says_nothing() -> None:
    (run,) = runs(checkpoints(60))
    assert run.began is None
    assert not sentences(run)


def test_counted_and_added_reports_say_the_same() -> None:
    whole = checkpoints(30)
    parts = [replace(whole, tensors=(each,)) for each in whole.tensors]
    assert told(merge(parts[::-1])) == told(whole)
    assert told(merge([part.counted() for part in parts])) == told(whole)
    saved = whole.to_json()
    assert told(Report.from_json(saved)) == told(whole)
    began = json.loads(saved)["where_it_began"][0]
    assert (began["step"], began["tensor"], began["clean_path"]) == (30, "layers.1.w", "run/checkpoint-20")


def test_a_tensor_judged_in_two_dtypes_is_one() -> None:
    whole = checkpoints(30)
    other = tuple(replace(each, dtype="float16") for each in whole.tensors)
    both = replace(whole, tensors=whole.tensors + other)
    assert told(both) == told(whole)
    assert told(both.counted()) == told(whole)


def activations(bad: dict[str, int], side: str = "output") -> Report:
    """Three calls of each rank at step 5, bad from one on."""
    tensors = [
        tensor(f"r{rank}/{layer}.pt", f"layers.{layer}", ERROR if layer >= bad[rank] else None,
               step=5, rank=int(rank), layer=layer, phase="forward", side=side, module=f"layers.{layer}")
        for rank in bad for layer in range(3)
    ]  # fmt: skip
    return Report(tensors=tuple(tensors))


@pytest.mark.parametrize(
    ("bad", "who"),
    [
        ({"0": 1, "1": 1, "2": 1}, "the same point on ranks 0-2"),
        ({"0": 1, "1": 1, "2": 2}, "the same point on ranks 0-1"),
        ({"0": 2, "1": 1, "2": 2}, "rank 1"),
    ],
)
def test_a_rank_is_first_only_in_an_earlier_call(bad: dict[str, int], who: str) -> None:
    assert told(activations(bad))[0] == f"first bad: step 5, {who}, layers.1 output: 1 NaN of 8 values"


def test_each_rank_names_its_own_first_and_none_twice() -> None:
    lines = told(activations({"0": 2, "1": 1}))
    assert [line for line in lines if "step 5, layers" in line] == [
        "own first of rank 0: step 5, layers.2 output: 1 NaN of 8 values"
    ]
    assert "own first" not in " ".join(told(activations({"0": 1, "1": 1})))


def test_weights_have_no_calls_so_no_rank_is_first() -> None:
    at = {"step": 3, "phase": "model"}
    report = Report(
        tensors=(
            tensor("a", "w", ERROR, rank=0, layer=2, **at),
            tensor("b", "w", ERROR, rank=1, layer=1, **at),
        )
    )
    assert "the same point on ranks 0-1" in told(report)[0]


@pytest.mark.parametrize(
    ("input_severity", "made"),
    [(None, "producer"), (ERROR, "propagator")],
)
def test_producer_and_propagator(input_severity: Severity | None, made: str) -> None:
    at = {"step": 1, "phase": "forward", "module": "mlp"}
    inputs = tensor("i", "data", input_severity, side="input", **at)
    output = tensor("o", "data", ERROR, side="output", **at)
    (run,) = runs(Report(tensors=(inputs, output)))
    assert run.began is not None
    assert run.began.made == made


def test_backward_runs_from_the_last_layer_on_and_after_forward() -> None:
    back = [
        tensor(f"{layer}", f"layers.{layer}", ERROR, step=1, rank=0, phase="backward", layer=layer)
        for layer in (2, 5)
    ]
    other = tensor("x", "x", None, step=2, rank=0)
    assert "layers.5" in told(Report(tensors=(*back, other)))[0]
    forward = tensor("f", "layers.7", ERROR, step=1, rank=0, phase="forward", layer=7)
    assert "layers.7" in told(Report(tensors=(*back, forward, other)))[0]


def test_the_number_of_the_call_goes_before_the_layer() -> None:
    calls = [tensor(f"{order}", f"call{order}", ERROR, order=order, layer=9 - order) for order in (3, 1, 2)]
    assert told(Report(tensors=tuple(calls)))[0] == "first bad: layer 8 call1: 1 NaN of 8 values"


def test_notes_and_known_findings_are_no_beginning() -> None:
    noted = [tensor("a", "kth_value", NOTE, step=1), tensor("b", "kth_value", NOTE, step=2)]
    assert not told(Report(tensors=tuple(noted)))
    bad = tensor("c", "w", ERROR, step=2)
    known = replace(bad, findings=(replace(bad.findings[0], known=True),))
    assert not told(Report(tensors=(*noted, known)))


def test_warnings_begin_only_where_there_are_no_errors() -> None:
    warned, healthy = tensor("a", "w", WARNING, step=1), tensor("b", "w", None, step=2)
    assert told(Report(tensors=(warned, healthy)))[0] == "first warning: step 1, w: 1 NaN of 8 values"
    errors = tensor("c", "w", ERROR, step=3)
    assert "first bad: step 3" in " ".join(told(Report(tensors=(warned, healthy, errors))))


def test_two_runs_are_two_stories() -> None:
    other = [replace(each, coordinates={**each.coordinates, "run": "b"}) for each in checkpoints(40).tensors]
    both = replace(checkpoints(20), tensors=(*checkpoints(20).tensors, *other))
    assert [run.began.first.step for run in runs(both) if run.began] == [40, 20]


def test_one_file_of_layers_is_no_run() -> None:
    layers = [replace(tensor("x", f"layers.{n}", ERROR), coordinates={"layer": n}) for n in range(3)]
    assert not runs(Report(tensors=tuple(layers)))


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("loss", (6.04, 6.01, math.nan), ["state.json says: loss 6.04 at step 10, 6.01 at step 20, nan at step 30"]),
        ("grad_norm", (1.0, 2.0, 3.0), []),
        ("loss", (3.0, 2.0, 1.0), ["logging_nan_inf_filter=False"]),
    ],
)  # fmt: skip
def test_the_trainers_own_log_stands_beside_it(
    name: str, values: tuple[float, ...], words: list[str]
) -> None:
    log = Logged("run", "run/checkpoint-50/trainer_state.json", name, (10, 20, 30), values)
    lines = [line for line in told(replace(checkpoints(30), logged=(log,))) if "says" in line]
    assert len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True))


@pytest.mark.parametrize(
    ("names", "words"),
    [(["0", "1", "2", "7"], "0-2, 7"), (["3"], "3"), (["tp 1", "tp 0"], "tp 0, tp 1"), ([], "")],
)
def test_spans(names: list[str], words: str) -> None:
    assert spans(names) == words
