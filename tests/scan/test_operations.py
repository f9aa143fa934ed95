"""check FILE --op NAME: which tensors are taken for which role, and what is said where that cannot be known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nanhunt
from nanhunt.errors import NanhuntError
from nanhunt.scan.inputs import Scan
from nanhunt.scan.options import Options


@pytest.fixture
def heads():
    query = torch.zeros(2, 3, 4, 8)
    query[1, 2, 3, 0] = float("nan")
    return {"query": query, "key": torch.zeros(2, 3, 4, 8), "value": torch.zeros(2, 3, 4, 8)}


def test_a_set_in_every_layer_is_judged_on_its_own(tmp_path, heads):
    path = tmp_path / "dump.pt"
    torch.save({"layers": [heads, {**heads, "query": torch.zeros(2, 3, 4, 8)}]}, path)
    report = nanhunt.check(path, op="attention")
    first, second = report.tensors
    assert (first.tensor, second.tensor) == ("layers.0.query", "layers.1.query")
    assert first.operation == "attention"
    assert first.roles == {name: f"{path}:layers.0.{name}" for name in heads}
    assert [(finding.code, finding.rows) for finding in first.findings] == [("NH601", (23,))]
    assert not second.findings


def test_roles_may_be_named(tmp_path, heads):
    path = tmp_path / "dump.npz"
    np.savez(path, a=heads["query"].numpy(), b=heads["key"].numpy())
    refused = nanhunt.check(path, op="attention")
    assert "needs: query" in refused.errors[0].message
    assert "--role query=NAME" in refused.errors[0].hint
    report = nanhunt.check(path, op="attention", role=("query=a", f"key={path}:b"))
    assert [finding.code for finding in report.findings] == ["NH601"]


def test_logits_and_targets_are_roles_of_bce(tmp_path):
    path = tmp_path / "dump.npz"
    np.savez(path, scores=np.array([1.0, 40.0], np.float32), y=np.array([1.0, 0.0], np.float32))
    report = nanhunt.compare(path, op="bce", dtype=["float32", "float16"])
    half, single = report.tensors
    assert (half.dtype, single.dtype) == ("float16", "float32")
    assert single.implementations["naive"].bad_value_rows == 1
    assert single.implementations["fused"].loss == pytest.approx(20.15663)
    assert nanhunt.check(path, op="bce", targets="y", logits="scores").findings == tuple(
        finding for finding in single.findings
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"op": "bce", "role": "logit=a"}, "Did you mean logits?"),
        ({"op": "bce", "role": "logits"}, "is not ROLE="),
        ({"op": "bce", "role": "targets=nothing"}, "neither a file nor a tensor"),
    ],
)
def test_what_cannot_be_understood_is_said(tmp_path, options, said):
    path = tmp_path / "dump.npz"
    np.savez(path, logits=np.zeros(2, np.float32), targets=np.zeros(2, np.float32))
    (error,) = nanhunt.check(path, **options).errors
    assert said in error.message + error.hint


def test_an_operation_that_nobody_knows_is_refused_before_anything_is_read():
    with pytest.raises(NanhuntError) as raised:
        nanhunt.check("nowhere.npz", op="bc")
    assert "Did you mean bce?" in raised.value.hint


def test_arrays_in_memory_are_the_roles_of_the_operation_asked_for():
    logits, targets = torch.tensor([[40.0], [1.0]]), torch.tensor([[0.0], [1.0]])
    for report in (
        nanhunt.check(logits, targets, op="bce"),
        nanhunt.check({"logits": logits}, targets, op="bce"),
    ):
        (tensor,) = report.tensors
        assert tensor.operation == "bce"
        assert "NH705" in [finding.code for finding in tensor.findings]


def test_cross_entropy_may_be_asked_for_by_name(tmp_path):
    path = tmp_path / "dump.npz"
    np.savez(path, logits=np.array([[1000.0, 1.0]], np.float32), labels=np.array([0]))
    asked, silent = nanhunt.check(path, op="cross-entropy"), nanhunt.check(path)
    assert asked.findings == silent.findings != ()


def test_values_is_an_operation_like_the_others(tmp_path):
    path = tmp_path / "dump.npz"
    np.savez(path, logits=np.array([[1000.0, 0.0]], np.float32), labels=np.array([1]))
    assert {each.operation for each in nanhunt.check(path).tensors} == {"cross-entropy"}
    (only,) = nanhunt.check(path, op="values").tensors
    assert (only.operation, only.tensor, only.findings) == ("values", "logits", ())
    assert nanhunt.check(np.array([np.inf]), op="values").findings[0].code == "NH501"
    (error,) = nanhunt.compare(path, op="values").errors
    assert error.message == "--op values has nothing to compare."
    np.save(tmp_path / "labels.npy", np.array([1]))
    (error,) = nanhunt.check(tmp_path / "labels.npy", op="values").errors
    assert "holds no numbers to check" in error.message


def test_tensors_said_in_python_play_their_roles_beside_those_of_a_dict_or_a_module():
    scores, labels = torch.tensor([40.0]), torch.tensor([0.0])
    alone = nanhunt.check(scores, labels, op="bce")
    assert [finding.code for finding in alone.findings] == ["NH705", "NH707"]
    assert nanhunt.check({"logits": scores}, labels, op="bce").findings == alone.findings
    module = torch.nn.Module()
    module.register_buffer("logits", scores)
    assert nanhunt.check(module, labels, op="bce").findings == alone.findings
    with pytest.raises(NanhuntError, match="attention takes no targets"):
        nanhunt.check({"query": scores}, labels, op="attention")


def test_compare_needs_a_path_for_an_operation_without_a_batch_of_its_own():
    with pytest.raises(NanhuntError, match="--op bce has no batch"):
        Scan(Options(op="bce"), compares=True).without_a_file()


def test_targets_in_a_file_go_with_logits_in_memory(tmp_path):
    np.save(tmp_path / "labels.npy", np.array([1]))
    report = nanhunt.check(np.array([[1000.0, 0.0]], np.float32), tmp_path / "labels.npy")
    assert report.tensors[0].targets.source == str(tmp_path / "labels.npy")
