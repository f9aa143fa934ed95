"""--function: the user's code, row by row, against plain PyTorch; the line that goes bad; and everything it may do."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import nanhunt
from nanhunt.cli import process
from nanhunt.cli.app import app

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LOSSES = """
import torch
import torch.nn.functional as F

LIMIT = 3

def softmax(logits):
    e = torch.exp(logits)
    return e / e.sum(-1, keepdim=True)

def loss(logits, targets, temperature=1.0):
    p = softmax(logits / temperature)
    picked = p.gather(-1, targets[:, None])
    return -torch.log(picked).mean()

def right(logits, targets, temperature=1.0):
    return F.cross_entropy(logits / temperature, targets)

def shifted(logits, targets, temperature=1.0):
    return F.cross_entropy(logits / temperature, targets) + 3

def distance(x):
    squared = x.pow(2).sum(-1)
    return torch.where(squared > 0, squared.sqrt(), 0.0)

def in_place(x):
    x.clamp_(min=0)
    return x.sum()

def pair(x):
    return x.sum(), x.mean()

def fails(x):
    raise ValueError("x must be a probability")

def nothing(x):
    x.sum()

def detached(x):
    return (x * 2).detach().sum()

def through_data(x):
    x.data.mul_(2)
    return x.sum()

def exits(x):
    raise SystemExit("no")

def whole(x):
    return (x @ x.mT).exp().sum(-1).log().mean()

def branching(x):
    return x.log().sum() if x.max().item() > 0 else (-x).log().sum()
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    path = tmp_path_factory.mktemp("code") / "losses.py"
    path.write_text(LOSSES)
    return path


def naive(logits, targets):
    e = torch.exp(logits)
    p = e / e.sum(-1, keepdim=True)
    return -torch.log(p.gather(-1, targets[:, None]))[:, 0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_rows_are_what_pytorch_makes_of_them(code, dtype, data):
    count = data.draw(st.integers(1, 6))
    numbers = st.sampled_from((0.0, 1.0, -3.0, 9.0, 11.0, 11.125, 88.5, 89.0, -104.0, 709.0, 710.0))
    logits = torch.tensor([[data.draw(numbers) for _ in range(3)] for _ in range(count)], dtype=torch.float64)
    targets = torch.tensor([data.draw(st.integers(0, 2)) for _ in range(count)])
    report = nanhunt.compare(
        {"logits": logits, "targets": targets}, function=f"{code}:loss", dtype=str(dtype)[6:]
    )
    leaf = logits.to(dtype).requires_grad_()
    losses = naive(leaf, targets)
    (losses * torch.tensor(1 / count, dtype=dtype)).sum().backward()
    (tensor,) = report.tensors
    seen = tensor.implementations["naive"]
    assert seen.bad_value_rows == int((~losses.isfinite()).sum())
    assert seen.bad_gradient_rows == int((~leaf.grad.isfinite()).any(-1).sum())
    bad = ~losses.isfinite() | (~leaf.grad.isfinite()).any(-1)
    told = {row for each in tensor.findings if each.severity != "note" for row in each.rows}
    assert told == {int(row) for row in bad.nonzero()[:, 0]}


def test_the_first_bad_line_of_their_file_is_named(code):
    logits, targets = torch.tensor([[1.0, 2.0], [95.0, 0.0]]), torch.tensor([0, 1])
    report = nanhunt.compare(
        {"logits": logits, "targets": targets}, function=f"{code}:loss", stable=f"{code}:right"
    )
    (tensor,) = report.tensors
    assert tensor.notes[0] == (
        "runs your code, nothing of the dump: naive is losses.py:loss; stable is losses.py:right; "
        "each row as a batch of one"
    )
    (finding,) = tensor.findings
    assert (finding.code, finding.rows) == ("NH914", (1,))
    assert finding.message == (
        "row 1: losses.py:8 `e = torch.exp(logits)`: exp(95) = inf; logits from 0 to 95, targets = 1; the truth is 95"
    )
    assert {name: each.bad_value_rows for name, each in tensor.implementations.items()} == {
        "naive": 1,
        "stable": 0,
    }
    assert tensor.truth.loss == pytest.approx(F.cross_entropy(logits.double(), targets).item())


def test_a_bad_gradient_has_a_line_too(code):
    report = nanhunt.check({"x": torch.tensor([[3.0, 4.0], [0.0, 0.0]])}, function=f"{code}:distance")
    (finding,) = report.findings
    assert (finding.code, finding.rows) == ("NH915", (1,))
    assert "losses.py:24 `return torch.where(squared > 0, squared.sqrt(), 0.0)`" in finding.message
    assert "backward pass" in finding.message


def test_parameters_are_found_in_every_step_and_by_role(code, tmp_path):
    batch = {"logits": torch.tensor([[95.0, 0.0]]), "targets": torch.tensor([1])}
    path = tmp_path / "dump.pt"
    torch.save({"steps": [batch, batch], "temperature": torch.tensor(2.0), "other": torch.zeros(1, 2)}, path)
    report = nanhunt.check(path, function=f"{code}:loss")
    assert [tensor.tensor for tensor in report.tensors] == ["steps.0.logits", "steps.1.logits"]
    named = nanhunt.check(
        path, function=f"{code}:loss",
        role=["logits=steps.0.logits", "targets=steps.0.targets", "temperature=temperature"],
    )  # fmt: skip
    assert named.ok  # 95 / 2 is no fault


def test_one_array_is_the_one_parameter(code, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    (tensor,) = nanhunt.check(tmp_path / "x.npy", function=f"{code}:distance").tensors
    assert [finding.rows for finding in tensor.findings] == [(0, 1)]


def test_rows_that_depend_on_each_other_are_one_batch(code):
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)) * 8  # products up to 200
    (tensor,) = nanhunt.check({"x": x}, function=f"{code}:whole").tensors
    assert (tensor.rows, tensor.unit) == (1, "batch")
    assert "as one batch: its rows depend on each other" in tensor.notes[0]
    assert [finding.code for finding in tensor.findings] == ["NH914"]  # exp(x @ x.T) is inf


def test_what_vmap_cannot_map_is_run_row_by_row(code):
    (tensor,) = nanhunt.check(
        {"x": torch.tensor([[1.0], [2.0], [-0.0]])}, function=f"{code}:branching"
    ).tensors
    assert "one by one" in tensor.notes[0]
    assert [(finding.code, finding.rows) for finding in tensor.findings] == [("NH913", (2,))]


def test_functions_in_memory_and_a_batch_whose_sum_overflows():
    def total(x):
        return (x * 1.0).sum()

    x = torch.full((300, 4), 100.0, dtype=torch.float16)
    (tensor,) = nanhunt.check({"x": x}, function=total).tensors
    (finding,) = tensor.findings
    assert finding.code == "NH916"
    assert "all 300 rows together in float16: it gives inf" in finding.message
    assert tensor.options["function"].endswith("total")
    assert nanhunt.check(x.float(), function=total).ok


def test_stable_that_survives_is_the_fix_and_was_run(code):
    logits, targets = torch.tensor([[1.0, 2.0], [95.0, 0.0], [80.0, 0.0]]), torch.tensor([0, 1, 1])
    batch = {"logits": logits, "targets": targets, "temperature": torch.tensor(2)}
    options = {"function": f"{code}:loss", "dtype": "float16"}
    (finding,) = nanhunt.check(batch, stable=f"{code}:right", **options).findings
    by_title = {fix.title: fix for fix in finding.remedies}
    stable = by_title["call the function given as --stable"]
    assert (stable.works, stable.rows, stable.bad_rows_after) == (True, 2, 0)
    assert stable.snippet == "loss = right(logits, targets, temperature=2)"
    assert by_title["give the function float32"].works
    finding, _ = nanhunt.check(batch, stable=f"{code}:shifted", **options).findings
    assert [(fix.title, fix.works) for fix in finding.remedies][-1] == (
        "call the function given as --stable",
        False,
    )


@pytest.mark.parametrize("kept", ["pt", "memory"])
def test_numbers_of_a_dump_are_given_as_numbers(tmp_path, kept):
    """A default would hide that the dump says otherwise; topk takes no tensor, and half precision no eps of 1e-8."""
    code = tmp_path / "taking.py"
    code.write_text(
        "import torch\n"
        "def top(logits, k, eps=0.5, centred=False):\n"
        "    assert type(k) is int and type(eps) is float and type(centred) is bool\n"
        "    x = logits - logits.amax(-1, keepdim=True) if centred else logits\n"
        "    return (x.topk(k).values.exp().sum(-1) + eps).log()\n"
    )
    dump = {"logits": torch.tensor([[1.0, 2.0], [100.0, 90.0]]), "k": 2, "eps": 1e-8, "centred": False}
    torch.save(dump, tmp_path / "dump.pt")
    given = str(tmp_path / "dump.pt") if kept == "pt" else dump
    (tensor,) = nanhunt.compare(given, function=f"{code}:top").tensors
    assert tensor.implementations["naive"].bad_value_rows == 1
    assert "k = 2; eps = 1e-08; centred = False" in tensor.notes[0]
    (calm,) = nanhunt.compare({**dump, "centred": True}, function=f"{code}:top").tensors
    assert not calm.findings


def test_whole_numbers_that_no_tensor_holds_are_left_to_the_default(code):
    batch = {"logits": torch.tensor([[1.0, 2.0]]), "targets": torch.tensor([1]), "temperature": 1 << 70}
    (tensor,) = nanhunt.compare(batch, function=f"{code}:loss").tensors
    assert "temperature" not in tensor.notes[0]


def test_many_rows_one_by_one_are_those_that_matter():
    calls = 0

    def branching(x):
        nonlocal calls
        calls += 1
        return x.log().sum() if x.max().item() > 0 else (-x).log().sum()

    x = torch.rand(30_000, 2, generator=torch.Generator().manual_seed(2)) + 0.1
    x[[7, 17_771, 29_999], 0] = 0.0
    (tensor,) = nanhunt.check({"x": x}, function=branching).tensors
    (finding,) = tensor.findings
    assert finding.rows == (7, 17_771, 29_999)
    assert finding.message.startswith("row 7: test_function.py:")
    assert "1,000 of 30,000 rows" in tensor.notes[0]
    assert (tensor.rows, tensor.shape) == (1000, (30_000, 2))
    assert calls < 10_000


def test_a_module_is_a_function_of_what_forward_takes():
    (tensor,) = nanhunt.check({"input": torch.ones(3, 4)}, function=torch.nn.Softplus()).tensors
    assert (tensor.rows, tensor.findings) == (3, ())


def test_what_the_code_prints_is_no_part_of_the_report(tmp_path, capsys):
    (tmp_path / "talks.py").write_text(
        "print('imported')\ndef f(x):\n    print('called')\n    return x.log().sum()\n"
    )
    torch.save({"x": torch.ones(2, 2)}, tmp_path / "x.pt")
    words = ["check", str(tmp_path / "x.pt"), "--function", f"{tmp_path / 'talks.py'}:f", "--format", "json"]
    assert process.run(app, words) == 0
    done = capsys.readouterr()
    assert json.loads(done.out)["exit_code"] == 0
    assert done.err.startswith("imported\ncalled\n")


def test_two_functions_that_differ_are_told():
    report = nanhunt.compare(
        {"x": torch.tensor([[0.5], [1e-9]])},
        function=lambda x: (x + 1e-8).log().sum(),
        stable=lambda x: x.log().sum(),
    )
    assert ("NH920", (1,)) in [(finding.code, finding.rows) for finding in report.findings]


def test_masks_and_healthy_rows_are_no_finding(code):
    logits = torch.tensor([[1.0, 2.0, -math.inf], [0.0, 5.0, 1.0]])
    assert nanhunt.check({"logits": logits, "targets": torch.tensor([0, 1])}, function=f"{code}:loss").ok


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("losses.py:los", "has no function los (--function). Did you mean"),
        ("losses.py:LIMIT", "LIMIT of"),
        ("loses.py:loss", "there is no file"),
        ("losses.py", "is not FILE.py:NAME"),
        ("broken.py:loss", "cannot be imported: ZeroDivisionError: division by zero"),
        ("losses.py:in_place", "losses.py:in_place changes its input x in place"),
        ("losses.py:pair", "losses.py:pair returns 2 values in a tuple"),
        ("losses.py:nothing", "losses.py:nothing returns None"),
        ("losses.py:detached", "losses.py:detached returns a tensor that no gradient reaches"),
        ("losses.py:through_data", "losses.py:through_data changes its input x in place"),
        ("losses.py:exits", "losses.py:exits raises SystemExit: no."),
        (
            "losses.py:fails",
            "losses.py:fails raises ValueError: x must be a probability. It was given x float64 (2, 2)",
        ),
        ("losses.py:loss", "losses.py:loss needs logits, targets"),
    ],
)
def test_what_the_code_may_not_do_is_said_in_one_message(code, tmp_path, monkeypatch, function, said):
    monkeypatch.chdir(code.parent)
    (code.parent / "broken.py").write_text("1 / 0\n")
    path = tmp_path / "dump.pt"
    torch.save({"x": torch.ones(2, 2), "y": torch.ones(2)}, path)
    (error,) = nanhunt.check(path, function=function).errors
    assert said in f"{error.message} {error.hint}"


def test_a_truth_of_minus_zero_is_told_as_zero():
    def handwritten(x):
        e = x.exp()
        return -(e / e.sum(-1, keepdim=True))[..., 0].log()

    (report,) = nanhunt.check({"x": torch.tensor([[120.0, 0.0], [1.0, 2.0]])}, function=handwritten).tensors
    assert report.findings[0].message.endswith("the truth is 0")
