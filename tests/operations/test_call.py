"""A captured call is run again; a file can ask for nothing but operations on the list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import nanhunt
from nanhunt.operations.call.allowed import NAMES, overload
from nanhunt.operations.call.spelling import CannotSpell, call_of, spelled, written


def saved(folder: Path, call: dict[str, Any], **tensors: torch.Tensor) -> Path:
    path = folder / "step-1.pt"
    torch.save({"nanhunt": {"op": "call", "call": json.dumps(call), "where": "train.py:3"}, **tensors}, path)
    return path


def codes(path: Path, **options: Any) -> list[str]:
    return [finding.code for finding in nanhunt.check(path, **options).findings]


def refusal(path: Path) -> str:
    report = nanhunt.check(path)
    assert report.exit_code == 2
    [error] = report.errors
    return error.message


DIV = {
    "call": "aten.div.Tensor",
    "args": [{"tensor": "self"}, {"tensor": "other"}],
    "kwargs": {},
}


def test_a_call_that_goes_bad_again_is_an_error_with_its_arithmetic(tmp_path: Path) -> None:
    path = saved(tmp_path, DIV, self=torch.tensor([1.0, 0.0]), other=torch.tensor([2.0, 0.0]))
    [tensor] = nanhunt.check(path).tensors
    [finding] = tensor.findings
    assert (finding.code, finding.count, finding.rows) == ("NH951", 1, (1,))
    assert finding.message == "value 1: div(0, 0) = NaN"
    assert tensor.notes == ("aten.div.Tensor was called at train.py:3",)
    assert tensor.roles == {"self": f"{path}:self", "other": f"{path}:other"}


def test_what_was_bad_when_it_came_in_is_not_the_calls_fault(tmp_path: Path) -> None:
    assert codes(saved(tmp_path, DIV, self=torch.tensor([torch.nan]), other=torch.ones(1))) == ["NH952"]
    assert codes(saved(tmp_path, DIV, self=torch.ones(2), other=torch.ones(2))) == []


def test_complex_numbers_that_come_in_finite_are_not_said_to_be_bad(tmp_path: Path) -> None:
    path = saved(tmp_path, DIV, self=torch.tensor([1j, 0j]), other=torch.tensor([1.0, 0.0]))
    [finding] = nanhunt.check(path).findings
    assert (finding.code, finding.message) == ("NH951", "value 1: div gives nan+nanj")
    bad = torch.tensor([1j, complex("nan")])
    assert codes(saved(tmp_path, DIV, self=bad, other=torch.ones(2))) == ["NH952"]


def test_another_dtype_is_another_verdict(tmp_path: Path) -> None:
    exp = {"call": "aten.exp.default", "args": [{"tensor": "self"}], "kwargs": {}}
    path = saved(tmp_path, exp, self=torch.tensor([20.0]))
    assert codes(path) == []
    assert codes(path, dtype="float16") == ["NH951"]


def test_an_operation_in_place_is_judged_by_what_it_was_given(tmp_path: Path) -> None:
    in_place = {**DIV, "call": "aten.div_.Tensor"}
    path = saved(tmp_path, in_place, self=torch.tensor([0.0]), other=torch.tensor([0.0]))
    assert codes(path) == ["NH951"]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "aten.from_file.default",
            "aten.set_.source_Storage",
            "aten._index_put_impl_.default",
            "os.system.x",
        ),
        *("aten.div.out", "aten.add.__class__", "aten.__class__.default", "prims.div.default", "aten", ""),
        "aten.randn.generator_with_names",
    ],
)
def test_an_operation_that_is_not_on_the_list_is_refused(name: str, tmp_path: Path) -> None:
    assert overload(name) is None
    path = saved(tmp_path, {**DIV, "call": name}, self=torch.ones(1), other=torch.ones(1))
    assert "not an operation that a file may ask for" in refusal(path)


def test_every_operation_on_the_list_is_one_of_torch_and_can_be_had() -> None:
    known = {name: getattr(torch.ops.aten, name).overloads() for name in sorted(NAMES)}
    lost = [
        name
        for name, variants in known.items()
        if not any(overload(f"aten.{name}.{one}") for one in variants)
    ]
    assert lost == []


@pytest.mark.parametrize(
    "call",
    [
        *(None, [], {"call": "aten.div.Tensor"}, {**DIV, "args": [{"tensor": "gone"}, {"tensor": "other"}]}),
        *({**DIV, "args": [{"dtype": "load"}, {"tensor": "other"}]}, {**DIV, "args": [{"a": 1, "b": 2}]}),
        {**DIV, "args": [{"tensor": "self"}]},
    ],
)
def test_a_damaged_call_is_refused(call: Any, tmp_path: Path) -> None:
    assert "no call that can be run" in refusal(
        saved(tmp_path, call, self=torch.ones(1), other=torch.ones(1))
    )


def test_arguments_of_every_kind_survive_json() -> None:
    x = torch.ones(2)
    args = (x, torch.inf, None, True, 3, [1, 2], "none")
    constants = {"dtype": torch.float16, "layout": torch.strided, "memory_format": torch.preserve_format}
    call = written(torch.ops.aten.clone.default, args[:1], constants, lambda tensor, label: label)
    again = call_of(json.loads(json.dumps(spelled(call))))
    assert again == call
    assert again.tensors == ["self"]
    gelu = written(torch.ops.aten.gelu.default, (x,), {"approximate": "tanh"}, lambda _, label: label)
    assert torch.equal(gelu.run({"self": x}), torch.nn.functional.gelu(x, approximate="tanh"))


def test_what_no_file_can_hold_is_not_written() -> None:
    with pytest.raises(CannotSpell, match="Generator"):
        written(
            torch.ops.aten.rand.generator, ([2],), {"generator": torch.Generator()}, lambda _, label: label
        )
    with pytest.raises(CannotSpell, match=r"aten\.from_file"):
        written(torch.ops.aten.from_file.default, ("f",), {}, lambda _, label: label)


def test_options_in_a_capture_count_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    told = {
        "op": "cross-entropy",
        "options": json.dumps({"ignore_index": 1, "op": "values", "function": "x.py:f"}),
    }
    path = tmp_path / "step-1.pt"
    rows = {"logits": torch.tensor([[torch.inf, 0.0], [0.0, 1.0]]), "targets": torch.tensor([1, 1])}
    torch.save({"nanhunt": told, **rows}, path)
    assert nanhunt.check(path).tensors[0].targets.ignored == 2
    assert nanhunt.check(path, ignore_index=-5).tensors[0].targets.ignored == 0


def test_a_capture_is_compared_as_the_operation_that_it_names(tmp_path: Path) -> None:
    path = tmp_path / "step-1.pt"
    rows = {
        "logits": torch.tensor([[1.0, 200.0], [0.0, 1.0]]),
        "targets": torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
    }
    torch.save({"nanhunt": {"op": "bce", "options": "{}"}, **rows}, path)
    (tensor,) = nanhunt.compare(path).tensors
    true = torch.nn.functional.binary_cross_entropy_with_logits(rows["logits"], rows["targets"])
    assert tensor.implementations["fused"].loss == pytest.approx(float(true))
    assert tensor.implementations["bce-of-sigmoid"].loss == pytest.approx(float(true))
