"""What was freed is not read, other processes are not waited for: the second look never harms the script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from nanhunt.watch.incident import Incident
from nanhunt.watch.session import Session, Settings

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "0",
    }.items():
        monkeypatch.setenv(name, value)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def watched(folder: Path, *, every_op: bool = False) -> tuple[list[Incident], Session]:
    found: list[Incident] = []
    return found, Session(Settings(keep_going=True, every_op=every_op, capture_dir=str(folder)), found.append)


@pytest.mark.parametrize("every_op", [False, True])
def test_an_input_whose_memory_was_freed(tmp_path: Path, every_op: bool) -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    gathered = torch.nn.Parameter(torch.ones(1_000_000))
    found, session = watched(tmp_path, every_op=every_op)
    with session:
        loss = gathered.detach().sum() + weight.log().sum()
        gathered.untyped_storage().resize_(0)
        loss.backward()
    assert found[0].what == "the loss is -inf"
    if not every_op:
        assert "the memory of an input was freed" in found[0].notes[0]


@pytest.mark.parametrize("every_op", [False, True])
def test_fully_sharded_parameters(tmp_path: Path, one_process: None, every_op: bool) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 3))
    for part in [*model, model]:
        fully_shard(part, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters())
    found, session = watched(tmp_path, every_op=every_op)
    with session:
        for scale in (1, 1, 0):
            out = model(torch.randn(5, 4))
            loss = (out.sum() * scale).abs().log()
            optimizer.zero_grad()
            loss.backward()
            if scale:
                assert found == []
                optimizer.step()
    assert (found[0].step, found[0].what) == (3, "the loss is -inf")
    assert "nanhunt failed" not in str(found)


class _Reduced(torch.autograd.Function):
    calls = 0

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        _Reduced.calls += 1
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


def test_a_step_that_needs_other_processes_is_not_repeated_from_its_beginning(
    tmp_path: Path, one_process: None
) -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    found, session = watched(tmp_path)
    state = torch.random.get_rng_state()
    with session:
        _Reduced.apply(weight).log().sum().backward()
    (note,) = found[0].notes
    assert note.startswith(
        "the step could not be repeated: it exchanges numbers with other processes; what follows"
    )
    assert found[0].culprits[0].operation == "log"
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_generators_are_put_back_after_a_second_look(tmp_path: Path) -> None:
    """Also those of a step that drew numbers itself, and of one whose repetition failed half-way."""
    for make in (torch.rand_like, _Fails.apply):
        found, session = watched(tmp_path)
        torch.manual_seed(0)
        weight = torch.nn.Parameter(-torch.ones(3))
        expected = [torch.rand(3), torch.rand(3)][1]
        torch.manual_seed(0)
        with session:
            (weight.exp() * 0 + make(weight) - 5).sqrt().sum().backward()
            assert torch.equal(torch.rand(3), expected)
        assert len(found) == 1


class _Fails(torch.autograd.Function):
    runs = 0

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        _Fails.runs += 1
        drawn = torch.rand(3)
        if _Fails.runs > 1:
            raise RuntimeError("not again")
        return x * drawn

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient
