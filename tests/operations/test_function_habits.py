"""--function: what people's code does besides computing: casts, random numbers, buffers, weights, compilers."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F

import nanhunt
from nanhunt.errors import NanhuntError

X = torch.tensor([[1.0, 2.0], [95.0, 0.0], [3.0, 4.0]])


def told(function, tensors=X, **options) -> dict[str, tuple[int, ...]]:
    tensors = {"x": tensors} if isinstance(tensors, torch.Tensor) else tensors
    return {each.code: each.rows for each in nanhunt.check(tensors, function=function, **options).findings}


def note(function, tensors=X) -> str:
    (tensor,) = nanhunt.check({"x": tensors}, function=function).tensors
    return tensor.notes[0]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.float().exp().sum(),
        lambda x: x.to(torch.float32).exp().sum(),
        lambda x: x.half().exp().sum(),
        lambda x: x.type(torch.bfloat16).exp().sum(),
        lambda x: F.softmax(x, -1, dtype=torch.float32).log().sum(),
        lambda x: (x * torch.ones(2, dtype=torch.float32)).exp().sum(),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_cast_of_their_own_does_not_narrow_the_truth(function, dtype):
    x = torch.tensor([[1.0, 2.0], [200.0, 0.0]])
    assert told(function, x, dtype=dtype) == {"NH914": (1,)}


def test_a_buffer_of_float32_does_not_either():
    assert told(lambda x: torch.zeros(x.shape[0]).add_(x.exp().sum(-1)).sum()) == {"NH914": (1,)}


def test_code_that_is_infinite_in_float64_is_that_with_a_cast_too():
    assert told(lambda x: x.float().exp().sum(), X * 10) == {"NH913": (1,)}


def noisy(x):
    return (x * torch.rand_like(x)).sum()


def counting(x, calls=[]):  # noqa: B006
    calls.append(1)
    return x.sum() * len(calls)


@pytest.mark.parametrize("function", [noisy, counting, lambda x: F.dropout(x, 0.5).sum()])
def test_code_that_gives_another_value_each_time_is_compared_with_nothing(function):
    x = X / 10
    assert not told(function, x)
    assert "as one batch: it draws random numbers, or gives another value when it is called again" in note(
        function, x
    )
    before = torch.get_rng_state()
    assert nanhunt.compare({"x": x}, function=noisy) == nanhunt.compare({"x": x}, function=noisy)
    assert torch.equal(before, torch.get_rng_state())


def test_random_code_that_goes_bad_is_told():
    assert told(lambda x: (F.dropout(x, 0.1) * 1e3).exp().sum()) == {"NH913": (0,)}


def test_an_operation_in_place_is_told_as_the_forward_one_that_it_is():
    def in_place(x):
        y = x.clone()
        y.exp_()
        return y.sum()

    (finding,) = nanhunt.check({"x": X}, function=in_place).findings
    assert "`y.exp_()`: exp(95) = inf; x from 0 to 95" in finding.message


@pytest.mark.parametrize("count", [4, 40])
def test_class_weights_are_no_rows_and_take_no_gradient(count):
    def loss(logits, targets, weight):
        return F.cross_entropy(logits, targets, weight=weight, reduction="sum")

    batch = {"logits": torch.eye(count), "targets": torch.arange(count), "weight": torch.ones(count)}
    (tensor,) = nanhunt.compare(batch, function=loss).tensors
    assert (tensor.rows, tensor.unit, tensor.findings) == (count, "row", ())
    right = F.cross_entropy(batch["logits"].double(), batch["targets"], reduction="sum")
    assert tensor.truth.loss == pytest.approx(right.item())


def test_no_row_is_missed_beside_one_with_a_bad_gradient():
    def unmapped(x):
        if x.max().item() > 1e39:
            return x.sum()
        return (x[:, 0] * 1e38).sum() + x[:, 1].sqrt().sum()

    x = torch.full((3000, 2), 0.01)
    x[[3, 2000], 0] = 5.0  # 5e38 is infinite, the gradient of 1e38 is not
    x[[7, 2001], 1] = 0.0  # the gradient alone is infinite
    assert told(unmapped, x) == {"NH914": (3, 2000), "NH915": (7, 2001)}


class Focal(torch.nn.Module):
    def forward(self, x):
        return x.exp().sum()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (Focal, "is a class. Give a function, or an instance of the class"),
        (lambda x: {"loss": x.sum()}, "returns 1 value in a dict. Let it return one"),
        (lambda x: (x.sum(), x), "returns 2 values in a tuple. Let it return one"),
        (lambda x: (x > 0).sum(), "returns a tensor of int64"),
        (lambda x: x.sum().item(), "returns a value of type float"),
        (
            lambda x, temperature: x.sum() / temperature,
            "needs temperature: no tensor of <memory> is called so",
        ),
        (lambda x, /: x.sum(), "has no parameters with names"),
        (lambda *xs: xs[0].sum(), "has no parameters with names"),
        (torch.no_grad()(lambda x: x.sum()), "returns a tensor that no gradient reaches"),
    ],
)
def test_one_message_each(function, said):
    with pytest.raises(NanhuntError) as raised:
        nanhunt.check({"x": X}, function=function)
    assert said in f"{raised.value} {raised.value.hint}"


def keyword_only(logits, *, targets, temperature=2.0):
    return F.cross_entropy(logits / temperature, targets)


def test_parameters_by_keyword_only_and_with_defaults():
    (tensor,) = nanhunt.compare(
        {"logits": X, "targets": torch.tensor([0, 1, 1])}, function=keyword_only
    ).tensors
    assert tensor.truth.loss == pytest.approx(F.cross_entropy(X.double() / 2, torch.tensor([0, 1, 1])).item())


def test_code_under_a_compiler_is_run_as_it_is_written():
    compiled = torch.compile(Focal(), backend="eager")
    assert "torch._dynamo" in sys.modules
    (finding,) = nanhunt.check({"x": X}, function=compiled).findings
    assert "`return x.exp().sum()`: exp(95) = inf" in finding.message
