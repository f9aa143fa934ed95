"""Who is to blame: what made it from finite numbers, not a mask, and not the last to pass it on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from nanhunt.watch.numbers import Signs, all_finite, finite, numbers
from nanhunt.watch.observer import Observer, culprits

INF = float("inf")
X = torch.tensor([[1.0, 100.0], [1.0, 2.0]])
MASK = torch.tensor([[False, True], [True, True]])


def _written_view() -> torch.Tensor:
    whole = torch.zeros(2, 2)
    whole[0].log_()
    return (whole * 2).sum()


def _two_births() -> torch.Tensor:
    return X.exp().sum() + (X - 1).log().sum()


CASES: dict[str, tuple[Callable[[], torch.Tensor], list[str]]] = {
    "birth": (lambda: 2 * (X.exp() / X.exp().sum(-1, keepdim=True)).sum(), ["exp", "exp"]),
    "two births": (_two_births, ["exp", "log"]),
    "mask is legal, its user is not": (lambda: X.masked_fill(MASK, -INF).softmax(-1).sum(), ["_softmax"]),
    "mask by addition": (lambda: (X + torch.full((2,), -INF)).softmax(-1).sum(), ["_softmax"]),
    "mask handed on": (lambda: X.masked_fill(MASK, -INF).t().clone().softmax(0).sum(), ["_softmax"]),
    "mask itself reaches the loss": (lambda: X.masked_fill(MASK, -INF).sum(), ["masked_fill"]),
    "computed -inf is no mask": (lambda: -(X - 1).log().sum(), ["log"]),
    "what an overflow leaves": (lambda: (1 / X.exp()).log().sum(), ["exp"]),
    "in place": (lambda: X.clone().div_(torch.zeros(2)).sum(), ["div_"]),
    "selection of good rows": (lambda: (X.exp()[1] - 10).log().sum(), ["log"]),
    "view written to": (_written_view, ["log_"]),
}


@pytest.mark.parametrize("name", CASES)
def test_blame(name: str) -> None:
    compute, expected = CASES[name]
    observer = Observer(lambda node: None)
    with observer:
        loss = compute()
    assert not finite(loss)
    assert [item.op for item in culprits([observer.of(loss)])] == expected


@pytest.mark.parametrize(
    "compute",
    [
        lambda: X.masked_fill(MASK & ~MASK[1:], -INF).softmax(-1),
        lambda: F.softmax(torch.tensor([[0.0, -INF]]), -1),
        lambda: torch.logsumexp(torch.tensor([[0.0, -INF]]), -1),
        lambda: torch.full((3,), -INF).maximum(torch.zeros(3)),
        lambda: torch.nan_to_num(X.exp()),
    ],
)
def test_what_is_swallowed_leaves_no_trace_on_the_result(compute: Callable[[], torch.Tensor]) -> None:
    observer = Observer(lambda node: None)
    with observer:
        out = compute()
    assert observer.of(out) is None


def test_forget_drops_every_tensor() -> None:
    observer = Observer(lambda node: None)
    with observer:
        X.exp()
    assert observer.by_memory
    observer.forget()
    assert not observer.by_memory


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_large_finite_values_are_finite_though_their_sum_is_not(dtype: torch.dtype) -> None:
    large = torch.full((70_000,), torch.finfo(dtype).max, dtype=dtype)
    assert finite(large)
    assert all_finite([large, -large])


@pytest.mark.parametrize("bad", [float("nan"), INF, -INF])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_one_bad_value_is_found_and_counted(bad: float, dtype: torch.dtype) -> None:
    tensor = torch.zeros(4, 5, dtype=dtype)
    tensor[2, 3] = bad
    assert not finite(tensor)
    assert not all_finite([torch.ones(3), tensor])
    found = numbers(tensor)
    assert (found.nan, found.posinf, found.neginf) == (bad != bad, bad == INF, bad == -INF)
    assert (found.rows, found.bad_rows, found.values, found.zero) == ((2,), 1, 20, 19)
    assert Signs.of(tensor) == Signs(bad != bad, bad == INF, bad == -INF)


def test_opposite_infinities_do_not_cancel() -> None:
    assert not all_finite([torch.tensor([INF]), torch.tensor([-INF])])


@pytest.mark.parametrize("place", range(5))
def test_a_bad_value_is_found_beside_tensors_of_every_kind(place: int) -> None:
    kinds = [
        torch.ones(2, dtype=torch.float16),
        torch.nn.Parameter(torch.ones(2)),
        torch.ones(2, dtype=torch.complex64),
        torch.eye(3).to_sparse(),
        torch.ones(2, dtype=torch.float64)[::2],
    ]
    without_numbers = [torch.ones(0), torch.ones(2, device="meta"), torch.ones(2).to(torch.float8_e4m3fn)]
    assert all_finite([*kinds, *without_numbers])
    bad = [one * float("nan") if number == place else one for number, one in enumerate(kinds)]
    assert not all_finite([*bad, *without_numbers])
