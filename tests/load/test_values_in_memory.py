"""Dicts, state_dicts and modules are judged like a file that holds the same; what has no plain values is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

import nanhunt

LOGITS, LABELS = torch.tensor([[1000.0, 1.0], [0.0, 1.0]]), torch.tensor([1, 0])


def bad_linear() -> torch.nn.Module:
    """A module with one NaN."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    with torch.no_grad():
        module[0].weight[1, 2] = math.nan
    return module


def told(report: nanhunt.Report) -> list[tuple[str, str]]:
    """(tensor, code) of every finding."""
    return [(tensor.tensor, finding.code) for tensor in report.tensors for finding in tensor.findings]


def test_a_dict_is_judged_like_a_file_with_the_same_tensors(tmp_path: Any) -> None:
    named = {"logits": LOGITS, "labels": LABELS}
    np.savez(tmp_path / "dump.npz", logits=LOGITS.numpy(), labels=LABELS.numpy())
    of_file, of_dict = nanhunt.check(tmp_path / "dump.npz"), nanhunt.check(named)
    assert told(of_dict) == told(of_file) == [("logits", "NH101"), ("logits", "NH201")]
    assert told(nanhunt.compare(named)) == told(of_dict)
    assert of_dict.tensors[0].targets == nanhunt.results.tensor.Targets("<memory>:labels", 0)


def test_targets_and_weights_of_a_dict_are_named_or_given() -> None:
    named = {"logits": LOGITS, "t": LABELS, "w": torch.ones(2)}
    by_name = nanhunt.check(named, "t", class_weights="w")
    by_value = nanhunt.check({"logits": LOGITS}, LABELS, class_weights=[1.0, 1.0])
    assert told(by_name) == told(by_value) == [("logits", "NH101"), ("logits", "NH201")]


@pytest.mark.parametrize("values", [bad_linear(), bad_linear().state_dict()], ids=["module", "state_dict"])
def test_modules_and_state_dicts_are_checked_by_name(values: Any) -> None:
    report = nanhunt.check(values)
    assert told(report) == [("0.weight", "NH501")]


def test_everything_that_holds_numbers_is_looked_at() -> None:
    nested = {"model": {"a": torch.ones(2)}, "history": [1.0, math.nan], "name": "run", "step": 3}
    assert told(nanhunt.check(nested)) == [("history.1", "NH503")]


def test_a_dict_holds_the_tensors_of_any_operation() -> None:
    named = {"logits": torch.tensor([[200.0, 0.0]]), "targets": torch.tensor([[0.0, 1.0]])}
    report = nanhunt.check(named, op="bce")
    assert [tensor.operation for tensor in report.tensors] == ["bce"]
    assert not report.ok


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "sparse": (LOGITS.to_sparse, "to_dense"),
    "meta": (lambda: torch.empty(2, 2, device="meta"), "values"),
    "quantized": (lambda: torch.quantize_per_tensor(LOGITS, 0.1, 0, torch.quint8), "dequantize"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "padded"),
    "ragged": (lambda: [[1.0], [1.0, 2.0]], "equal length"),
    "object": (object, "floating-point"),
    "integers": (lambda: torch.ones(4, 1, dtype=torch.int64), "floating-point"),
}


@pytest.mark.filterwarnings(
    "ignore"
)  # torch announces the end of quantized tensors, and that nested ones are new
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_plain_values_is_refused_in_words(name: str) -> None:
    made, hint = REFUSED[name]
    value = made()
    for judge in (nanhunt.check, nanhunt.compare):
        with pytest.raises(nanhunt.NanhuntError) as raised:
            judge(value)
        assert hint in raised.value.hint
        with pytest.raises(nanhunt.NanhuntError):
            judge(LOGITS, value)


def test_a_sparse_tensor_in_a_state_dict_is_an_error_beside_those_that_are_judged() -> None:
    report = nanhunt.check({"weight": torch.full((2,), math.nan), "mask": LOGITS.to_sparse()})
    assert told(report) == [("weight", "NH501")]
    assert [error.file for error in report.errors] == ["<memory>:mask"]


def test_a_dict_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {"x": torch.ones(2)}
    loop["self"] = loop
    with pytest.raises(nanhunt.NanhuntError, match="absurdly"):
        nanhunt.check(loop)


def test_values_are_shared_and_not_changed() -> None:
    from nanhunt.load.memory import tensor_of

    kept = LOGITS.clone()
    assert np.shares_memory(tensor_of(kept, "x").data, kept.numpy())
    nanhunt.compare(kept, LABELS)
    assert torch.equal(kept, LOGITS)
    negative = torch.conj(torch.ones(2, 2) + 2j * torch.ones(2, 2)).imag
    assert negative.is_neg()
    assert tensor_of(negative, "x").data.tolist() == [[-2.0, -2.0], [-2.0, -2.0]]


JAX = """
import jax, nanhunt
for dtype in ("float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"):
    values = jax.numpy.array([[1.0, 2.0, jax.numpy.nan], [3.0, 0.5, 0.0]]).astype(dtype)
    (judged,) = nanhunt.check({"params": {"w": values}}, op="values").tensors
    assert (judged.stored_dtype, judged.tensor) == (dtype, "params.w"), judged
    assert [finding.code for finding in judged.findings] == ["NH501"], judged
    (apart,) = nanhunt.diff(values, values.at[1, 0].set(0)).tensors
    assert (apart.differing, apart.first_differing) == (1, (1, 0)), apart
"""


@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
def test_arrays_of_jax_keep_their_dtype() -> None:
    # In a process of its own: from its import on JAX warns of every fork, and other tests fork.
    subprocess.run([sys.executable, "-c", JAX], check=True)
