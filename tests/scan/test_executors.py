"""Any concurrent.futures.Executor judges the same, byte for byte."""

from __future__ import annotations

import multiprocessing
import pickle
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nanhunt
from nanhunt.operations import bounds, findings, judge
from nanhunt.operations.bce.operation import BCE
from nanhunt.operations.cross_entropy import units
from nanhunt.operations.cross_entropy.job import Job
from nanhunt.operations.cross_entropy.options import CrossEntropyOptions
from nanhunt.operations.cross_entropy.targets import read_targets
from nanhunt.operations.problem import problem_of
from nanhunt.operations.rules import chosen
from nanhunt.operations.tally import Tally
from nanhunt.operations.values import check
from nanhunt.parallel.forks import Forks
from nanhunt.parallel.threads import Threads
from nanhunt.scan.options import Options


class Serial(Executor):
    """A loop; what it is given and what it gives back is pickled, as on another machine."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        call, given, named = pickle.loads(pickle.dumps((fn, args, kwargs)))
        future.set_result(pickle.loads(pickle.dumps(call(*given, **named))))
        return future


class Shuffled(Executor):
    """Does everything in an order of its own, and takes no iterators, as Dask's."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def map(
        self, fn: Callable[..., Any], *iterables: Any, timeout: Any = None, chunksize: int = 1
    ) -> Iterator[Any]:
        assert not any(isinstance(each, Iterator) for each in iterables)
        items = list(zip(*iterables, strict=True))
        order = list(range(len(items)))
        self._random.shuffle(order)
        done = {index: fn(*items[index]) for index in order}
        return (done[index] for index in range(len(items)))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        raise NotImplementedError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Logits of both layouts, soft targets and weights in files, several units of work each."""
    monkeypatch.setattr(units, "BLOCK_VALUES", 1 << 10)
    monkeypatch.setattr(units, "SCREEN_BYTES", 1 << 12)
    monkeypatch.setattr(bounds, "BLOCK_VALUES", 1 << 10)
    monkeypatch.setattr(check, "SMALL_VALUES", 1 << 10)
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((600, 7)).astype(np.float32)
    logits[::50] *= 100
    logits[3, 2] = np.nan
    soft = rng.dirichlet(np.ones(7), 600).astype(np.float32)
    np.savez(tmp_path / "labels.npz", logits=logits, labels=rng.integers(0, 7, 600))
    np.savez(
        tmp_path / "images.npz", logits=logits.reshape(6, 7, 100) * 20, labels=rng.integers(0, 7, (6, 100))
    )
    np.savez(tmp_path / "soft.npz", logits=logits, targets=soft)
    weights = {
        "a": torch.from_numpy(logits),
        "b": torch.ones(3, dtype=torch.bfloat16),
        "scale": torch.tensor(np.inf),
    }
    torch.save(weights, tmp_path / "weights.pt")
    return tmp_path


def said(folder: Path, executor: Executor | None) -> str:
    """All reports."""
    inside = np.load(folder / "labels.npz")
    bce = {"logits": inside["logits"], "targets": (inside["logits"] > 0) * 1.0}
    heads = dict.fromkeys(("query", "key", "value"), inside["logits"][:, :6].reshape(60, 10, 6))
    reports = [
        nanhunt.check(folder / "labels.npz", executor=executor),
        nanhunt.compare(folder / "images.npz", class_axis=1, label_smoothing=0.1, executor=executor),
        nanhunt.check(folder / "soft.npz", executor=executor),
        nanhunt.check(folder / "weights.pt", dtype="float16", executor=executor),
        nanhunt.compare(bce, op="bce", executor=executor),
        nanhunt.compare(heads, op="attention", executor=executor),
    ]
    differs = nanhunt.diff(folder / "soft.npz", folder / "labels.npz", executor=executor)
    return "".join(report.to_json() for report in (*reports, differs))


def test_every_executor_says_the_same_byte_for_byte(folder: Path) -> None:
    usual = said(folder, None)
    assert usual.count('"code": "NH101"') >= 3
    assert said(folder, Serial()) == usual
    assert said(folder, Shuffled(seed=1)) == usual
    assert said(folder, Forks(2)) == usual
    assert said(folder, Threads(2)) == usual
    with ThreadPoolExecutor(3) as threads:
        assert said(folder, threads) == usual
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        assert said(folder, processes) == usual
    resource_tracker._resource_tracker._stop()  # it would be a child of later tests too


def test_a_unit_of_work_is_an_address_and_a_range(tmp_path: Path) -> None:
    """However large the tensors, and however long the labels: they are opened or mapped where the work is done."""
    rows = 200_000
    np.save(tmp_path / "x.npy", np.zeros((rows, 3), np.float32))
    logits = nanhunt.load.open_path(str(tmp_path / "x.npy")).tensors[""]
    labels = nanhunt.load.memory.tensor_of(np.arange(rows) % 3, "labels")
    options = CrossEntropyOptions()
    job = Job(
        logits,
        "float32",
        read_targets(labels, "argument", logits, -1, -100),
        None,
        options,
        chosen("cross-entropy", (), ()),
    )
    pickled = pickle.dumps(units.Unit(job, 100, 200))
    assert len(pickled) < 4000
    unit = pickle.loads(pickled)
    assert np.array_equal(unit.job.block(100, 200), job.block(100, 200))
    assert np.array_equal(unit.job.row_targets(np.arange(100, 200)).labels, np.arange(100, 200) % 3)
    assert units.run_unit(unit).tally.sums == units.run_unit(units.Unit(job, 100, 200)).tally.sums


def test_what_was_written_for_other_processes_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    nanhunt.check(np.zeros((20_000, 5), np.float32), np.zeros(20_000, np.int64), executor=Serial())
    assert not list(tmp_path.iterdir())


def test_tallies_add_up_to_the_same_bit_for_bit_in_any_order(folder: Path) -> None:
    """Also their sums of floats and their lists of first rows, so that results may be added as they come in."""
    inside = np.load(folder / "labels.npz")
    tensors = {
        "logits": nanhunt.load.memory.tensor_of(inside["logits"], "logits"),
        "targets": nanhunt.load.memory.tensor_of((inside["logits"] > 0) * np.float32(1), "targets"),
    }
    problem = problem_of(BCE, tensors, "float16", Options(), frozenset(rule.code for rule in BCE.rules))
    parts = [judge.tally(problem, *each)[0] for each in bounds.ranges(problem)]
    assert len(parts) > 5
    whole = repr(findings.report(problem, sum(parts, start=Tally()), compares=True))
    for seed in range(5):
        random.Random(seed).shuffle(parts)
        middle = len(parts) // 2
        total = sum(parts[middle:], start=Tally()) + sum(parts[:middle], start=Tally())
        assert repr(findings.report(problem, total, compares=True)) == whole
