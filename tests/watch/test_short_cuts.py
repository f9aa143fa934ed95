"""What makes a call cheaper changes nothing of what is recorded, and torch is left as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from nanhunt.watch.recorder import _FRESH, _is_fresh
from nanhunt.watch.session import Session, Settings
from nanhunt.watch.tape import Entry

X, WHOLE, MASK = torch.rand(3, 3) + 0.5, torch.tensor([[0, 1, 2]] * 3), torch.ones(3, 3, dtype=torch.bool)
ARGUMENTS: tuple[tuple[Any, ...], ...] = (
    *(
        (X,),
        (X, X),
        (X, X[0]),
        (X[0], X[0]),
        (X, 1),
        (X, 0.0),
        (X, 1.0),
        (X, -1),
        (X, (3,)),
        (X, X, X),
        (X, 0, 9),
    ),
    *((X[None], X[None]), (X, 0, WHOLE), (X, 0, WHOLE[0]), (X, 0, WHOLE[0], X), (X, 0, WHOLE, X)),
    *((X, 0, WHOLE, X, "sum"), (X, MASK), (MASK, X, X), (X, MASK, 0.0), (X, WHOLE[0]), (X / 9, X / 9)),
    *((MASK, MASK), (MASK,), ([X],), ([X, X],), (3,), (3, 3), ((3,), 1.0), (MASK, ~MASK)),
)
"""Among them what is the same afterwards: adding 0, multiplying by 1, one tensor joined with nothing."""


@contextlib.contextmanager
def session() -> Iterator[Session]:
    with Session(Settings(), lambda incident: pytest.fail(f"{incident}")) as watching:
        yield watching


def functions(name: str) -> list[Callable[..., Any]]:
    found = [getattr(place, name, None) for place in (torch, torch.Tensor, F)]
    return [func for func in found if func is not None and _is_fresh(func)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(_FRESH))
def test_what_is_called_new_shares_no_memory_and_was_never_written_to(name: str) -> None:
    ran = 0
    for func in functions(name):
        for arguments in ARGUMENTS:
            for gradients in (False, True):
                given = [
                    one.clone().requires_grad_(gradients and one.is_floating_point())
                    if isinstance(one, torch.Tensor)
                    else one
                    for one in arguments
                ]
                try:
                    out = func(*given)
                except (TypeError, RuntimeError, IndexError, ValueError, AttributeError, NotImplementedError):
                    continue
                if type(out) is torch.Tensor and out is not given[0]:
                    ran += 1
                    assert out._version == 0
                    listed = [*given, *given[0]] if isinstance(given[0], list) else given
                    tensors = [one for one in listed if isinstance(one, torch.Tensor)]
                    assert all(one.data_ptr() != out.data_ptr() for one in tensors)
    assert ran


def entry_of(watching: Session, tensor: torch.Tensor) -> Entry:
    slot = watching.recorder.tape.find(tensor)
    return next(entry for entry in watching.recorder.tape.entries if entry.out is slot)


def test_autocast_is_known_as_soon_as_it_changes() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), session() as watching:
        before = X @ X
        with torch.autocast("cpu", enabled=False):
            without = X @ X
            with torch.amp.autocast("cpu", dtype=torch.float16):
                inside = X @ X
        after = X @ X
        seen = [entry_of(watching, one).autocast for one in (before, without, inside, after)]
    under = (("cpu", torch.bfloat16),)
    assert seen == [under, (), (("cpu", torch.float16),), under]


def test_views_of_a_new_tensor_share_its_memory_on_the_tape() -> None:
    with session() as watching:
        new = X * 2
        other = X * 2
        view = new[0]
        tape = watching.recorder.tape
        assert [tape.find(one).memory for one in (new, view)] == [new.untyped_storage()._cdata] * 2  # type: ignore[union-attr]
        assert tape.find(other).memory < 0  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore")
def test_torch_is_as_before() -> None:
    names = ("set_autocast_enabled", "set_autocast_dtype")
    before = [getattr(torch, name) for name in names], F.__dict__["handle_torch_function"]
    with session():
        assert F.__dict__["handle_torch_function"] is not before[1]
        out = torch.jit.script(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Softmax(-1)))(X)
    assert ([getattr(torch, name) for name in names], F.__dict__["handle_torch_function"]) == before
    assert torch.equal(out, F.softmax(X, -1))


def test_another_mode_on_top_is_asked_first() -> None:
    class Doubling(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            return out + out if func is F.mse_loss else out

    with session(), Doubling():
        loss = F.mse_loss(X, X * 2)
    assert torch.equal(loss, 2 * X.square().mean())
