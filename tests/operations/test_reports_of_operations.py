"""What a report says of each operation: its JSON, its rows, its snippets, whichever operation it is."""

from __future__ import annotations

import ast
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import nanhunt
from nanhunt.cli.app import app
from nanhunt.operations.operation import Operation
from nanhunt.operations.registry import OPERATIONS
from nanhunt.results.schema import schema

SAMPLES = Path(__file__).parents[2] / "samples"
JUDGED = [name for name, each in OPERATIONS.items() if isinstance(each, Operation)]
FILES = {"attention": "attention", "ppo": "policy", "bce": "preference"}
OPTIONS: dict[str, dict[str, Any]] = {"contrastive": {"temperature": 0.07}}
ROLES = {"attention": ("scores=layers.0.attn.scores",)}
VALIDATOR = Draft202012Validator(schema())


def sample(op: str) -> Path:
    """The file of that operation."""
    return SAMPLES / (f"{FILES[op]}.safetensors" if op in FILES else f"operations/{op}.safetensors")


def entry(op: str, judge: Any = nanhunt.compare) -> dict[str, Any]:
    """The JSON of the only tensor that is judged."""
    report = judge(sample(op), op=op, role=ROLES.get(op, ()), **OPTIONS.get(op, {}))
    body = json.loads(report.to_json())
    assert [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(body)] == []
    (tensor,) = body["tensors"]
    return tensor


@pytest.fixture(scope="module", params=JUDGED)
def told(request):
    """(operation, its entry)."""
    return OPERATIONS[request.param], entry(request.param)


def test_an_entry_says_operation_roles_rows_and_implementations(told):
    operation, tensor = told
    assert tensor["operation"] == operation.name
    assert set(tensor["roles"]) <= {role.name for role in operation.roles}
    of_files = [label for label in tensor["roles"].values() if not label.startswith("<memory>:")]
    assert of_files
    assert all(label.startswith(f"{sample(operation.name)}:") for label in of_files)
    assert tensor["rows"] == np.prod(tensor["unit_shape"], dtype=int) > 0
    assert {"naive", "fused"} <= set(tensor["implementations"]) <= set(operation.forms)
    for form in tensor["implementations"].values():
        counts = [form[name] for name in ("bad_value_rows", "bad_gradient_rows", "wrong_rows")]
        assert all(0 <= count <= tensor["rows"] for count in counts)
        assert form["max_error"] is None or form["max_error"] >= 0
    naive = tensor["implementations"]["naive"]
    assert naive["bad_value_rows"] + naive["bad_gradient_rows"] + naive["wrong_rows"] > 0, (
        "the sample has no fault"
    )


def test_snippets_use_the_roles_and_end_in_loss_or_output(told):
    _, tensor = told
    fixes = [fix for finding in tensor["findings"] for fix in finding["remedies"]]
    assert any(fix["works"] for fix in fixes)
    known = {*tensor["roles"], "torch", "F"}
    for fix in fixes:
        body = ast.parse(fix["snippet"]).body
        names = [each for each in ast.walk(ast.Module(body, [])) if isinstance(each, ast.Name)]
        made = {each.id for each in names if isinstance(each.ctx, ast.Store)}
        builtins = {"int", "float", "len", "min", "max", "range", "sum"}
        bound = {each.arg for each in ast.walk(ast.Module(body, [])) if isinstance(each, ast.arg)}
        read = {each.id for each in names if isinstance(each.ctx, ast.Load)}
        assert read <= known | made | builtins | bound
        assert made & {"loss", "output"}, fix["title"]


def test_check_and_compare_agree_on_the_findings(told):
    operation, tensor = told
    assert entry(operation.name, nanhunt.check)["findings"] == tensor["findings"]


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_rows_are_saved_with_their_forms_and_cause(told, tmp_path, suffix):
    operation, tensor = told
    file = tmp_path / f"rows{suffix}"
    words = [
        "check",
        str(sample(operation.name)),
        "--op",
        operation.name,
        "--save-rows",
        str(file),
        "--quiet",
    ]
    words += [word for role in ROLES.get(operation.name, ()) for word in ("--role", role)]
    words += [
        word for name, value in OPTIONS.get(operation.name, {}).items() for word in (f"--{name}", str(value))
    ]
    CliRunner().invoke(app, words)
    columns = dict(np.load(file)) if suffix == ".npz" else columns_of(file)
    names = {f"{form}_{what}_finite" for form in tensor["implementations"] for what in ("value", "gradient")}
    assert names | {"cause"} == set(columns) - {"tensor", "dtype", "row"}
    for form, counts in tensor["implementations"].items():
        assert np.count_nonzero(~columns[f"{form}_value_finite"]) == counts["bad_value_rows"]
        assert np.count_nonzero(~columns[f"{form}_gradient_finite"]) == counts["bad_gradient_rows"]
    assert set(columns["cause"]) - {""} <= {finding["name"] for finding in tensor["findings"]}


def columns_of(file: Path) -> dict[str, Any]:
    """The columns of a .csv, those of truth values as such."""
    lines = list(csv.DictReader(file.read_text().splitlines()))
    columns = {name: np.array([line[name] for line in lines]) for name in lines[0]}
    return {name: each == "True" if name.endswith("_finite") else each for name, each in columns.items()}


def roles_of(words: list[str], given: bytes = b"") -> list[dict[str, str]]:
    """The roles of every entry that `nanhunt check ... --format json` writes."""
    result = CliRunner().invoke(app, ["check", *words, "--format", "json"], input=given)
    body = json.loads(result.stdout)
    assert [error.message for error in VALIDATOR.iter_errors(body)] == []
    return [tensor["roles"] for tensor in body["tensors"]]


def test_cross_entropy_says_where_its_tensors_were_found(tmp_path):
    logits, labels = np.full((2, 3), 120, np.float32), np.array([0, 1])
    logits[:, 1] = 0
    path, second, weights = (str(tmp_path / f"{name}.npz") for name in ("one", "two", "weights"))
    np.savez(path, logits=logits, targets=labels)
    np.savez(second, logits=logits, y=labels)
    np.savez(weights, w=np.ones(3, np.float32))
    found = {"logits": f"{path}:logits", "targets": f"{path}:targets"}
    assert roles_of([path]) == [found]
    assert roles_of([path, "--op", "softmax"]) == [{"logits": f"{path}:logits"}]
    both = roles_of([path, second])
    assert sorted(both, key=str) == [found, {"logits": f"{second}:logits", "targets": f"{second}:y"}]
    assert roles_of([path, "--class-weights", f"{weights}:w"]) == [{**found, "class weights": f"{weights}:w"}]
    assert roles_of([path, "--targets", f"{second}:y"]) == [{**found, "targets": f"{second}:y"}]
    assert roles_of(["-"], Path(path).read_bytes()) == [{"logits": "-:logits", "targets": "-:targets"}]
    (report,) = nanhunt.check(logits, labels, class_weights=np.ones(3, np.float32)).tensors
    given = {name: f"<memory>:{name}" for name in ("logits", "targets", "class weights")}
    assert dict(report.roles) == given
    assert (
        dict(nanhunt.check({"logits": logits, "targets": labels}).tensors[0].roles).items() <= given.items()
    )


def test_a_role_may_be_called_by_the_last_word_of_its_name(tmp_path):
    path = str(tmp_path / "dump.npz")
    scores = np.full((2, 3, 3), 120, np.float32)
    np.savez(path, scores=scores, m=np.ones((3, 3), bool))
    told = {"scores": f"{path}:scores", "attn_mask": f"{path}:m"}
    assert roles_of([path, "--op", "attention", "--role", "mask=m"]) == [told]
    (error,) = nanhunt.check(path, op="attention", role=["msk=m"]).errors
    assert error.message == "--role msk is not known."


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_cross_entropy_counts_what_every_operation_counts(dtype):
    cast = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(200, 6, generator=generator) * torch.logspace(-1, 2.5, 200)[:, None]
    logits[7, 2] = -torch.inf
    labels = torch.randint(0, 6, (200,), generator=generator)
    labels[7] = 2  # masked: the loss is infinite in truth
    x = logits.to(cast, copy=True).requires_grad_()
    e = x.exp()
    losses = -(e / e.sum(-1, keepdim=True)).gather(-1, labels[:, None])[:, 0].log()
    losses.mean().backward()
    losses = losses.detach()
    true = F.cross_entropy(logits.to(cast).double(), labels, reduction="none")
    bad = ~losses.isfinite() & true.isfinite()
    error = (losses.double() - true).abs()[losses.isfinite()]
    bound = 64 * torch.finfo(cast).eps / 2 * true.clamp_min(np.log(6))[losses.isfinite()]
    (compared,) = nanhunt.compare(logits, labels, dtype=dtype).tensors
    naive, fused = compared.implementations["naive"], compared.implementations["fused"]
    assert naive.bad_value_rows == int(bad.sum()) > 10
    assert naive.bad_gradient_rows == int((~x.grad.isfinite()).any(-1).sum())
    assert naive.wrong_rows == int((error > bound).sum())
    assert naive.max_error == naive.max_loss_error == pytest.approx(float(error.max()))
    assert (fused.bad_value_rows, fused.wrong_rows) == (0, 0)
    (checked,) = nanhunt.check(logits, labels, dtype=dtype).tensors
    same = [form.bad_value_rows for form in checked.implementations.values()]
    assert same == [form.bad_value_rows for form in compared.implementations.values()]
    assert {form.wrong_rows for form in checked.implementations.values()} == {None}


def test_a_wrong_loss_of_cross_entropy_is_counted():
    """The maximum is added to a logarithm that it absorbs."""
    (report,) = nanhunt.compare([[3e7, 3e7 - 2, 3e7]], [1], dtype="float32").tensors
    counts = {name: form.wrong_rows for name, form in report.implementations.items()}
    assert counts == {"naive": 0, "log-of-softmax": 0, "logsumexp": 1, "fused": 0}


def test_all_rows_are_counted_and_the_first_are_named() -> None:
    logits = torch.full((5, 3), float("nan"))
    (finding,) = nanhunt.check(logits, op="logsumexp", max_rows=2).findings
    assert (finding.count, finding.rows) == (5, (0, 1))
