"""A checkpoint with bad values does not take the place of a good one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import nanhunt
from nanhunt.errors import NanhuntError
from nanhunt.load.checkpoints import checkpoints
from nanhunt.scan.last_good import last_good


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """One step of Adam."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3, 4)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def test_all_clear() -> None:
    assert nanhunt.guard.faults(*trained()) == ()


@pytest.mark.parametrize("where", ["0.weight", "1.running_var", "optimizer.state.1.exp_avg"])
def test_weights_buffers_and_optimizer_state_are_looked_at(where: str) -> None:
    model, optimizer = trained()
    state = dict([*model.named_parameters(), *model.named_buffers()])
    state |= {
        f"optimizer.state.{n}.{name}": value
        for n, each in enumerate(optimizer.state.values())
        for name, value in each.items()
    }
    state[where].data.view(-1)[1] = torch.nan
    (fault,) = nanhunt.guard.faults(model, optimizer)
    assert fault.startswith(f"{where}: 1 NaN of ")


def test_wrapped_optimizers_and_mappings_are_seen_through() -> None:
    class Wrapped:
        def __init__(self, optimizer: Any) -> None:
            self.optimizer = optimizer

    model, optimizer = trained()
    next(iter(optimizer.state.values()))["exp_avg"][0, 0] = torch.inf
    (fault,) = nanhunt.guard.faults(model.state_dict(), Wrapped(Wrapped(optimizer)))
    assert fault.startswith("optimizer.state.0.exp_avg: 1 +inf of 16 values")


def test_a_mask_of_infinities_is_no_fault() -> None:
    model, optimizer = trained()
    model.register_buffer("mask", torch.full((5, 5), -torch.inf).triu(1))
    assert nanhunt.guard.faults(model, optimizer) == ()


def test_what_has_no_tensors_is_refused() -> None:
    with pytest.raises(NanhuntError, match="A str has no tensors to look at"):
        nanhunt.guard.faults("model.pt")


def ask(rank: int, bad: tuple[int, ...], store: str, answers: Any) -> None:
    """One of three processes of a run, each with a shard of its own; those of ``bad`` hold a NaN."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=3)
    shard = torch.ones(4)
    if rank in bad:
        shard[1] = torch.nan
    answers.put(nanhunt.guard.faults({"w": shard}))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ((), ()),
        ((2,), ("rank 2: w: 1 NaN of 4 values, the first at [1]",)),
        ((0, 1), ("ranks 0-1: w: 1 NaN of 4 values, the first at [1]",)),
        ((0, 1, 2), ("w: 1 NaN of 4 values, the first at [1]",)),
    ],
)
def test_all_ranks_get_the_same_answer(tmp_path: Path, bad: tuple[int, ...], said: tuple[str, ...]) -> None:
    processes = torch.multiprocessing.get_context("fork")
    answers = processes.SimpleQueue()
    started = [
        processes.Process(target=ask, args=(rank, bad, str(tmp_path / "store"), answers)) for rank in range(3)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert [answers.get() for _ in started] == [said] * 3


# ---------------------------------------------------------------------------------------------- folders


def saved(run: Path, *bad: bool) -> None:
    """Checkpoints 1, 2, 3 ... of one weight."""
    for step, is_bad in enumerate(bad, 1):
        (run / f"checkpoint-{step}").mkdir(parents=True)
        torch.save(
            {"w": torch.tensor([1.0, torch.nan if is_bad else 2.0])}, run / f"checkpoint-{step}" / "model.pt"
        )


def left(run: Path) -> list[int]:
    return [each.step for each in checkpoints(str(run))]


@pytest.mark.parametrize(
    ("bad", "keep", "kept"),
    [
        ((False, False, False, False), 2, [3, 4]),
        ((False, False, True, True), 2, [2, 3, 4]),
        ((False, True, True, True), 1, [1, 4]),
        ((True, True, True), 1, [3]),
        ((False,), 3, [1]),
    ],
)
def test_rotation_never_deletes_the_last_good_one(
    tmp_path: Path, bad: tuple[bool, ...], keep: int, kept: list[int]
) -> None:
    saved(tmp_path, *bad)
    deleted = nanhunt.guard.rotate(tmp_path, keep=keep)
    assert left(tmp_path) == kept
    assert len(deleted) == len(bad) - len(kept)


def test_to_keep_none_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, False)
    with pytest.raises(ValueError, match="at least one"):
        nanhunt.guard.rotate(tmp_path, keep=0)
    assert left(tmp_path) == [1]


def test_a_marked_checkpoint_is_passed_over(tmp_path: Path) -> None:
    saved(tmp_path, False, False)
    nanhunt.guard.mark(tmp_path / "checkpoint-2", "loss spiked")
    answer = last_good(checkpoints(str(tmp_path)))
    assert answer.checkpoint is not None
    assert answer.checkpoint.step == 1
    assert answer.refused[0].why == "marked as bad: loss spiked"


def test_a_file_is_marked_beside_itself_and_rotated_with_its_mark(tmp_path: Path) -> None:
    for step in (1, 2):
        torch.save({"w": torch.ones(2)}, tmp_path / f"step={step}.ckpt")
    mark = nanhunt.guard.mark(tmp_path / "step=1.ckpt", "bad")
    assert left(tmp_path) == [1, 2]
    assert nanhunt.guard.rotate(tmp_path, keep=1) == [str(tmp_path / "step=1.ckpt")]
    assert not mark.exists()
